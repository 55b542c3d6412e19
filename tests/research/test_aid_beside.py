"""AID beside its rivals: one line a method and number of evaluations, differences paired by picture."""

from __future__ import annotations

from paintback.bench.pictures.cell import Cell
from research.aid_beside import table


def test_a_line_for_every_method_and_budget_and_the_difference_by_picture():
    """Pictures that differ by 1 and methods by 0.01 are told apart, and a module of one's own goes by its folder."""
    cost = {"evaluations": 4, "vjps": 0, "seconds": 0.1, "peak_memory_bytes": None}

    def holes(more):
        return [
            {"picture": str(k), "mask": mask, "sample": 0, "lpips": k + more, "psnr": 10.0 + k, **cost}
            for k in range(3)
            for mask in ("box", "half")
        ]

    own = Cell("aid:guidance=made/new/aid.safetensors", "aid", {"guidance": "made/new/aid.safetensors"}, 4, None, 4)
    named = Cell("aid:guidance=adjoint", "aid", {"guidance": "adjoint"}, 4, None, 4)
    cells = [Cell("ddnm", "ddnm", {}, 4, None, 4), Cell("aid", "aid", {}, 4, None, 4), own, named]
    results = [(cell, holes(more)) for cell, more in zip(cells, (0.02, 0.0, -0.01, 0.03), strict=True)]
    results.append((Cell("aid", "aid", {}, 8, None, 8), holes(0.5)))
    lines = table(results).splitlines()
    assert [line.split(" | ")[1] for line in lines[2:]] == ["aid, new", "aid", "ddnm", "aid, adjoint", "aid"]
    assert lines[0].count("|") == lines[-1].count("|")
    assert "+0.0200 ± 0.0000" in lines[4] and "-0.0100 ± 0.0000" in lines[2]
    assert "1.0200 ±" in lines[4] and "11.00 ±" in lines[4]
