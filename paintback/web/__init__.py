"""The page and its HTTP API: pictures go up, jobs wait in line, one worker paints, events tell how far it is."""
