"""`history`, `status` and `rollback`, on a project that was built twice and then failed a gate."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli
from project import CommandResult, InProcessProject

STEPS: tuple[dict[str, Any], ...] = (
    {"id": "one", "runs": "runs.txt"},
    {"id": "gate", "use": "faulty.gate", "runs": "runs.txt"},
)

TWO = ({**STEPS[0], "text": "two"}, STEPS[1])


@pytest.fixture(scope="module")
def thrice(tmp_path_factory: pytest.TempPathFactory) -> InProcessProject:
    """Give a project of three runs; not to be changed."""
    bench = InProcessProject(tmp_path_factory.mktemp("history") / "project")
    bench.built(bench.recipe(*STEPS))
    bench.built(bench.recipe(*TWO))
    bench.run(bench.recipe({**STEPS[0], "text": "three"}, {**STEPS[1], "score": 0.1})).expect(3)
    return bench


@pytest.fixture
def bench(thrice: InProcessProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InProcessProject:
    """Give a copy of it, to be changed."""
    shutil.copytree(thrice.home, tmp_path / "project", symlinks=True)
    monkeypatch.setenv("CPU_PIPELINE_STORE", str(tmp_path / "project" / "store"))
    monkeypatch.chdir(tmp_path / "project")
    return InProcessProject(tmp_path / "project")


def service(bench: InProcessProject) -> str:
    return (bench.out / "small" / "latest").resolve().name


def versions(bench: InProcessProject) -> tuple[str, str]:
    first, second = ([json.loads(line)["version"] for line in (bench.out / "small" / "promotions.jsonl").open()])[:2]
    return first, second


def test_lists_runs_newest_first(cli: Cli, bench: InProcessProject) -> None:
    first, second = versions(bench)
    lines = [line.split() for line in cli("history").out.splitlines()]
    assert [line[3:5] for line in lines] == [["run", "small"]] * 3
    assert [line[5] for line in lines] == ["failed", "done", "done"]
    assert lines[0][6:-1] == [
        "(3)",
        "-",
        *["step", "`gate`:", "score", "0.1,", "at", "least", "0.5", "asked;", "report:"],
    ]
    assert lines[0][-1].endswith("/report.md")
    assert [line[6] for line in lines[1:]] == [second, first]
    said = cli("history", "--json", "--limit", "2").json
    assert [(run["outcome"], run["exit_code"]) for run in said["runs"]] == [("failed", 3), ("done", 0)]
    assert "versions" not in said and said["runs"][0]["recipe"].endswith("small.yaml")


def test_lists_the_versions_of_one(cli: Cli, bench: InProcessProject) -> None:
    first, second = versions(bench)
    lines = [line.split() for line in cli("history", "small").out.splitlines()]
    assert lines[-2][0] == second and lines[-2][3:] == ["run", "in", "service"]
    assert lines[-1][0] == first and lines[-1][3:] == ["run"]
    assert cli("rollback", "small").code == 0
    said = cli("history", "small", "--json").json
    assert [(v["version"], v["by"], v["state"]) for v in said["versions"]] == [
        (first, "rollback", "in service"), (second, "run", "rolled back"),
    ]  # fmt: skip
    assert [run["command"] for run in said["runs"]] == ["rollback", "run", "run", "run"]


def test_a_name_that_nobody_knows(cli: Cli, bench: InProcessProject) -> None:
    said = cli("history", "smal")
    assert said.code == 2
    assert "smal: nothing of that name was run (did you mean `small`?); known are: small" in said.err


def test_an_empty_store_has_no_history(cli: Cli, tmp_path: Path) -> None:
    said = cli("history", "--store", tmp_path / "none", "--out", tmp_path / "nothing")
    assert (said.code, said.out, said.err) == (0, "", "")
    assert cli("history", "--store", tmp_path / "none", "--json").json == {"runs": []}
    assert not (tmp_path / "none").exists()


def test_the_index_is_made_anew(cli: Cli, bench: InProcessProject) -> None:
    wanted = cli("history").out
    (bench.store / "runs.sqlite").write_bytes(b"no index")
    assert cli("history").out == wanted
    (bench.store / "runs.sqlite").unlink()
    lines = cli("history", "--reindex").out.splitlines()
    assert lines[0] == f"{bench.store / 'runs.sqlite'}: 3 runs" and "\n".join(lines[1:]) + "\n" == wanted


def test_rolls_back_and_forward(cli: Cli, bench: InProcessProject) -> None:
    first, second = versions(bench)
    assert cli("rollback", "small").out == f"small: {second} → {first}\n"
    assert service(bench) == first
    assert cli("rollback", "small", first).out == f"unchanged  small: {first} is in service already\n"
    assert cli("rollback", "small", second, "--json").json == {"name": "small", "from": first, "to": second}
    assert service(bench) == second
    runs = cli("history", "--json").json["runs"]
    assert [(run["command"], run["version"], run["recipe"]) for run in runs[:3]] == [
        ("rollback", second, None), ("rollback", first, None), ("rollback", first, None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["smal"], "there is no artifact smal (did you mean `small`?); there are: small"),
        (["../artifacts/small"], "there is no artifact ../artifacts/small"),
        (["small", "abc"], "there is no version abc; there are: "),
        (["small", "latest"], "there is no version latest; there are: "),
    ],
)
def test_what_is_not_there_is_told(cli: Cli, bench: InProcessProject, arguments: list[str], says: str) -> None:
    before = service(bench)
    said = cli("rollback", *arguments)
    assert said.code == 2 and says in said.err
    assert service(bench) == before


def test_a_version_that_is_not_whole_stays_out_of_service(cli: Cli, bench: InProcessProject) -> None:
    first, second = versions(bench)
    (bench.out / "small" / first / "report.md").write_text("edited")
    said = cli("rollback", "small")
    assert said.code == 7 and "is not what was written (report.md); it is not put into service" in said.err
    assert service(bench) == second
    assert cli("history", "--json").json["runs"][0]["exit_code"] == 7


def test_a_rollback_that_is_not_remembered_says_so(cli: Cli, bench: InProcessProject) -> None:
    first, second = versions(bench)
    shutil.rmtree(bench.store / "runs")
    (bench.store / "runs").write_text("in the way")
    said = cli("rollback", "small")
    assert said.out == f"small: {second} → {first}\n"
    assert said.err.startswith("warning   history  this run is not recorded: ")


def test_a_run_puts_back_what_was_rolled_back(cli: Cli, bench: InProcessProject) -> None:
    first, second = versions(bench)
    cli("rollback", "small")
    bench.built(bench.recipe(*TWO))
    assert service(bench) == second
    states = {v["version"]: v["state"] for v in cli("history", "small", "--json").json["versions"]}
    assert states == {first: "", second: "in service"}


def call(bench: InProcessProject, *arguments: object) -> CommandResult:
    """Run `status`, which plans the recipe: so the stages of the tests are installed."""
    return bench.call("status", *arguments, "--store", bench.store)


def test_status_says_what_fails(bench: InProcessProject) -> None:
    bench.run(bench.home / "small.yaml").expect(3)
    said = call(bench, "small.yaml")
    assert said.code == 5
    warning, *_, last = said.err.splitlines()
    assert warning.startswith("warning   small: Unchecked: no gate judged the answers of `one`")
    text, _, report = last.partition("; report: ")
    assert text == "error: small: the last run failed (3): step `gate`: score 0.1, at least 0.5 asked"
    assert Path(report).is_file()
    assert said.out.startswith(f"wrong  small  {versions(bench)[1]}  fresh ")
    assert "lock missing" in said.out and said.out.endswith("last run failed\n")


def test_status_is_quiet_when_all_is_well(bench: InProcessProject) -> None:
    (bench.home / "recipes").mkdir()
    shutil.copytree(bench.home / "model", bench.home / "recipes" / "model")
    bench.built(bench.recipe(*TWO))
    (bench.home / "small.yaml").rename(bench.home / "recipes" / "small.yaml")
    said = call(bench, "--max-age", "36h", "--json")
    assert said.code == 0
    assert [line.partition(": no gate")[0] for line in said.err.splitlines()] == ["warning   small: Unchecked"]
    [found] = said.json
    assert (found["name"], found["version"], found["problems"]) == ("small", versions(bench)[1], [])
    assert 0 <= found["age"] < 600
    assert call(bench, "--max-age", "1.001m").code == 0
    assert call(bench, "--max-age", "8").code == 2


def test_status_of_a_broken_recipe_does_not_hide_the_others(bench: InProcessProject) -> None:
    (bench.home / "small.yaml").write_text("model: [")
    other = bench.recipe({"id": "one"}, name="other")
    said = call(bench, "small.yaml", other)
    assert said.code == 5
    assert "small: small.yaml:2:1:" in said.err and "other: nothing is in service in artifacts/other" in said.err
    assert [line.split()[:3] for line in said.out.splitlines()][1] == ["wrong", "other", "none"]


def test_a_lock_is_remembered_as_what_puts_nothing_out(cli: Cli, bench: InProcessProject) -> None:
    bench.call("lock", bench.recipe(*TWO), "--store", bench.store).expect(0)
    run = cli("history", "--json").json["runs"][0]
    assert (run["command"], run["outcome"], run["puts_out"], run["version"]) == ("lock", "done", False, None)
    said = json.loads((bench.store / "runs" / run["id"] / "run.json").read_text())
    assert Path(said["lock"]).name == "small.lock" and said["lock_changed"] is True
    assert said["manifest"]["version"] == versions(bench)[1]
