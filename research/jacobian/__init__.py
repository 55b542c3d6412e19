"""The derivative of a denoiser: `derivative` and `holes` measure it, `suite` and `report` make docs/jacobian.md."""
