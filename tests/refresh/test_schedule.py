"""Files for schedulers: each holds for its own schema, and runs what was meant, whatever recipes are called."""

from __future__ import annotations

import getpass
import importlib.resources
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from scheduling import ODD, REMOTE, calls, record_calls, shell, write_project, write_recipe

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.refresh import schedule
from cpu_pipeline.refresh.schedule import Kind, Order

NAMES = ["alpha", ODD]
DAILY = ["recipes/alpha.yaml", f"recipes/{ODD}.yaml"]
RECIPES = [word for name in DAILY for word in ("--recipe", name)]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path / "pro ject 50%")


def order(project: Path, **more: Any) -> Order:
    said = {"store_remote": REMOTE, "image": "registry.example/cpu-pipeline:1", **more}
    return Order(schedule.jobs(schedule.find_recipes(project), project), project, **said)


def made(kind: str, project: Path, **more: Any) -> str:
    """Return the one file of a scheduler."""
    [text] = schedule.files(Kind(kind), order(project, **more)).values()
    return text


def test_recipes_of_one_schedule_are_one_job(project: Path) -> None:
    daily, weekly = order(project).jobs
    assert (daily.name, daily.recipes, daily.max_age) == ("cpu-pipeline-refresh-alpha", tuple(DAILY), "2d")
    assert (weekly.name, weekly.recipes, weekly.max_age) == (
        "cpu-pipeline-refresh-weekly", ("recipes/weekly.yaml",), "8d",
    )  # fmt: skip
    assert daily.cron.text.endswith(" 3 * * *") and daily.cron.minutes[0] not in (0, 30)
    assert weekly.cron.text.endswith(" 4 1,15 * 5") and weekly.cron.minutes[0] > 30
    assert daily.cron.text in daily.moved and "`0 3 * * *`" in daily.moved


def test_names_of_jobs_stay_apart_and_short(tmp_path: Path) -> None:
    for number, name in enumerate(["A" * 60, "a" * 59, "é", "_"]):
        write_recipe(tmp_path, name, f'{{cron: "{number + 1} 3 * * *"}}')
    names = [job.name for job in order(tmp_path).jobs]
    assert len(set(names)) == 4 and all(len(name) <= 52 for name in names)
    assert {"cpu-pipeline-refresh-recipe", "cpu-pipeline-refresh-recipe-2"} <= set(names)
    assert all(name.replace("-", "").isalnum() and name.islower() and name.isascii() for name in names)


def test_what_is_watched(project: Path) -> None:
    (project / "pipelines").mkdir()
    (project / "pipelines" / "mine.yaml").write_text("about: x.\nstages: [{id: float, use: export.onnx}]\n")
    text = 'model: {folder: model}\ntask: text-classification\npipeline: mine\nrefresh: {cron: "5 3 * * *"}\n'
    (project / "recipes" / "own.yaml").write_text(text)
    watches = {job.recipes[0]: job.watches for job in order(project).jobs}
    assert watches["recipes/own.yaml"] == ("recipes/own.yaml", "pipelines/mine.yaml", "recipes/model/**")
    assert watches["recipes/alpha.yaml"] == ("recipes/alpha.yaml", "recipes/model/**", f"recipes/{ODD}.yaml")
    assert watches["recipes/weekly.yaml"] == ()


def test_environments_are_made_where_a_step_needs_one(project: Path) -> None:
    path = write_recipe(project, "old", '{cron: "9 9 * * *"}')
    path.write_text(path.read_text().replace("export.onnx", "export.optimum"))
    assert [job.create_envs for job in order(project).jobs] == [False, True, False]
    assert "recipes/old.yaml --keep-going --json --create-envs" in made("cron", project, store_remote=None)


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:secret@bucket/x",
        "https://host/x?sig=secret",
        "sftp://user@host/x",
        "-x",
        "s3://bucket/a\nb",
        "s3://key:sec/secret@bucket/x",
        "https://user:x#secret@host/x",
    ],
)
def test_an_address_with_secrets_is_refused(url: str) -> None:
    with pytest.raises(RecipeError) as caught:
        schedule.address(url)
    assert "secret" not in str(caught.value).split("a file is no place")[0]


# GitHub Actions


def workflow(project: Path, **more: Any) -> Any:
    return yaml.safe_load(made("github-actions", project, **more))


def steps(job: Any) -> dict[str, Any]:
    return {step.get("name", step.get("uses")): step for step in job["steps"]}


@pytest.mark.parametrize("remote", [None, REMOTE, "gs://bucket/x", "/mnt/store"])
def test_the_workflow_holds_for_githubs_schema(project: Path, remote: str | None) -> None:
    place = importlib.resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "github-workflows.json"
    schema = json.loads(place.read_text(encoding="utf-8"))
    jsonschema.Draft7Validator(schema).validate(workflow(project, store_remote=remote))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(schema).validate(workflow(project) | {"jobs": {"x": {"steps": []}}})


def test_what_the_workflow_says(project: Path) -> None:
    daily, weekly = order(project).jobs
    said = workflow(project)
    assert said["permissions"] == {"contents": "write"}
    assert [one["cron"] for one in said["on"]["schedule"]] == [daily.cron.text, weekly.cron.text]
    assert said["on"]["workflow_dispatch"] is None
    assert said["on"]["push"]["paths"][:2] == ["recipes/alpha.yaml", "recipes/model/**"]
    first, second = said["jobs"].values()
    assert f"github.event.schedule == '{daily.cron.text}'" in first["if"]
    assert "github.event_name != 'push'" in second["if"] and "default_branch" not in second["if"]
    assert first["concurrency"]["cancel-in-progress"] is False
    assert steps(first)["Refresh"]["env"]["HF_TOKEN"] == "${{ secrets.HF_TOKEN }}"
    assert "secrets.HF_TOKEN" not in json.dumps([step for name, step in steps(first).items() if name != "Refresh"])
    for name in ("Push built steps", "Commit what moved", "Hand out what is in service", "Is everything fresh?"):
        assert steps(first)[name]["if"] == "${{ !cancelled() }}"
    assert steps(first)["Pull built steps"]["continue-on-error"] is True
    keys = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    for name in ("Pull built steps", "Refresh", "Push built steps"):
        assert steps(first)[name]["env"].keys() - {"HF_TOKEN"} == keys
    restored, saved = (
        steps(first)["Bring back earlier versions and runs"]["with"],
        steps(first)["Keep versions and runs"],
    )
    assert restored["path"] == saved["with"]["path"] == "artifacts\n.cpu-pipeline/runs"
    first_of_all, *_ = restored["restore-keys"].splitlines()
    assert saved["with"]["key"].startswith(first_of_all) and "run_id" not in restored["restore-keys"]


def test_comments_are_kept_and_change_nothing(project: Path) -> None:
    text = made("github-actions", project)
    assert "# also when another recipe's gate failed" in text and "comment-" not in text
    assert f"# `{order(project).jobs[0].cron.text}` stands for `0 3 * * *`" in text
    why = [line for line in text.splitlines() if "off the full and half hours" in line]
    assert len(why) == 2 and all(line.startswith("  # ") and len(line) <= 120 for line in why)


def test_a_script_that_looks_like_a_comment_stays(project: Path) -> None:
    script = "true\ncomment-0-of-1: null\n  comment-1-of-2: null\nuses: a/b@c-comment-0-of-1\n# v1"
    said = workflow(project, store_remote=None, install=script)
    assert steps(next(iter(said["jobs"].values())))["Install"]["run"] == script


def test_without_a_remote_the_workflow_keeps_its_store(project: Path) -> None:
    said = steps(next(iter(workflow(project, store_remote=None)["jobs"].values())))
    assert said["Keep versions and runs"]["with"]["path"] == "artifacts\n.cpu-pipeline"
    assert "Push built steps" not in said and "Pull built steps" not in said


def caches(job: Any) -> tuple[str, list[str]]:
    """Return the key that a job saves under, and what the keys begin with that it takes up."""
    said = steps(job)
    restored, saved = said["Bring back earlier versions and runs"]["with"], said["Keep versions and runs"]["with"]
    assert restored["key"] == saved["key"] and restored["path"] == saved["path"]
    return saved["key"], restored["restore-keys"].splitlines()


def test_no_job_takes_up_the_cache_of_another(tmp_path: Path) -> None:
    """GitHub takes the newest key that begins so, and names of recipes begin with one another."""
    for number, name in enumerate(["a", "a-b", "a-b-c", "a,b"]):
        write_recipe(tmp_path, name, f'{{cron: "{number + 1} 3 * * *"}}')
    found = {name: caches(job) for name, job in workflow(tmp_path)["jobs"].items()}
    assert len(found) == 4
    for name, (key, _) in found.items():
        assert "," not in key and len(key) < 512, "GitHub refuses it"
        assert [other for other, (_, begins) in found.items() if key.startswith(tuple(begins))] == [name]


def test_what_is_remembered_outlives_another_name_of_the_job(tmp_path: Path) -> None:
    write_recipe(tmp_path, "b", '{cron: "7 3 * * *"}')
    [[name, job]] = workflow(tmp_path)["jobs"].items()
    key, _ = caches(job)
    write_recipe(tmp_path, "other", '{cron: "8 3 * * *"}')
    jobs = workflow(tmp_path)["jobs"]
    assert name not in jobs and caches(jobs["cpu-pipeline-refresh-b"])[0] == key
    write_recipe(tmp_path, "a", '{cron: "7 3 * * *"}')
    assert key.startswith(tuple(caches(workflow(tmp_path)["jobs"]["cpu-pipeline-refresh-a"])[1]))


def test_actions_are_named_by_their_commits(project: Path) -> None:
    """A tag can be moved to other code, and these jobs may write to the repository."""
    text = made("github-actions", project)
    uses = [line.strip().removeprefix("- ") for line in text.splitlines() if line.strip("- ").startswith("uses: ")]
    assert len(uses) == 10 and len(set(uses)) == 5
    assert all(re.fullmatch(r"uses: actions/[a-z/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line) for line in uses)


def test_the_workflow_runs_what_was_meant(project: Path, tmp_path: Path) -> None:
    said = steps(next(iter(workflow(project)["jobs"].values())))
    path = record_calls(tmp_path / "bin", {})
    for name in ("Pull built steps", "Refresh", "Push built steps", "Is everything fresh?"):
        script = said[name]["run"]
        assert "${{" not in script  # GitHub would read it as an expression
        assert shell(script, path, project, "bash", "-eo", "pipefail", "-c").returncode == 0
    assert calls(path) == [
        ["store", "pull", REMOTE, *RECIPES],
        ["refresh", *DAILY, "--keep-going", "--json", "--store-remote", REMOTE],
        ["store", "push", REMOTE, *RECIPES],
        ["status", *DAILY, "--max-age", "2d"],
    ]


def test_inputs_of_actions_are_taken_literally(project: Path) -> None:
    said = steps(next(iter(workflow(project)["jobs"].values())))
    paths = said["Hand out what is in service"]["with"]["path"].splitlines()
    assert paths[0] == "artifacts/alpha/latest/"
    assert "${{ '${{' }} 1 }}" in paths[1] and "\\*é" in paths[1]


def git(*words: str, cwd: Path) -> str:
    identity = ["-c", "user.name=Someone", "-c", "user.email=someone@example.org"]
    done = subprocess.run(["git", *identity, *words], cwd=cwd, check=True, capture_output=True, text=True)
    return done.stdout


def test_what_moved_is_committed_and_nothing_else(project: Path, tmp_path: Path) -> None:
    script = steps(next(iter(workflow(project)["jobs"].values())))["Commit what moved"]["run"]
    assert "${{" not in script
    git("init", "--quiet", "--bare", "--initial-branch", "main", str(tmp_path / "origin"), cwd=tmp_path)
    git("init", "--quiet", "--initial-branch", "main", cwd=project)
    git("remote", "add", "origin", str(tmp_path / "origin"), cwd=project)
    alike = project / "recipes" / f"{ODD}.yaml".replace("\\", "").replace("*", "xx")
    alike.write_text("fits the name when that is read as a pattern")
    git("add", "recipes", cwd=project)
    git("commit", "--quiet", "--message", "Begin", cwd=project)
    git("push", "--quiet", "--set-upstream", "origin", "main", cwd=project)

    def run() -> None:
        done = shell(script, Path("/nowhere"), project, "bash", "-eo", "pipefail", "-c")
        assert done.returncode == 0, done.stderr

    run()
    assert git("log", "--format=%s", cwd=tmp_path / "origin").splitlines() == ["Begin"]
    git("clone", "--quiet", str(tmp_path / "origin"), "other", cwd=tmp_path)
    (tmp_path / "other" / "elsewhere").write_text("somebody else's")
    git("add", ".", cwd=tmp_path / "other")
    git("commit", "--quiet", "--message", "Meanwhile", cwd=tmp_path / "other")
    git("push", "--quiet", cwd=tmp_path / "other")
    alike.write_text("edited, and none of ours")
    (project / "recipes" / f"{ODD}.yaml").write_text("moved")
    (project / "recipes" / f"{ODD}.lock").write_text("locked")
    (project / "artifacts").mkdir()
    (project / "artifacts" / "model.onnx").write_text("not for git")
    run()
    subjects = git("log", "--format=%s", cwd=tmp_path / "origin").splitlines()
    assert subjects == [f"Refresh alpha, {ODD}", "Meanwhile", "Begin"]
    files = git(
        "-c", "core.quotePath=false", "show", "--format=%an", "-z", "--name-only", "main", cwd=tmp_path / "origin"
    )
    assert files.replace("\0", "\n").split("\n") == [
        "github-actions[bot]", "", f"recipes/{ODD}.lock", f"recipes/{ODD}.yaml", "",
    ]  # fmt: skip
    assert alike.read_text() == "edited, and none of ours"


# Kubernetes


def cronjobs(project: Path, **more: Any) -> list[Any]:
    return list(yaml.safe_load_all(made("kubernetes", project, **more)))


@pytest.mark.parametrize("remote", [None, REMOTE])
def test_cron_jobs_hold_for_kubernetes_schema(project: Path, remote: str | None) -> None:
    for version in ("1.27", kubernetes_validate.latest_version()):
        for document in cronjobs(project, store_remote=remote):
            kubernetes_validate.validate(document, version, strict=True)
    wrong = cronjobs(project)[0]
    wrong["spec"]["concurencyPolicy"] = "Forbid"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


def test_what_a_cron_job_says(project: Path) -> None:
    daily, weekly = (document["spec"] for document in cronjobs(project))
    assert (daily["timeZone"], daily["concurrencyPolicy"]) == ("Etc/UTC", "Forbid")
    assert 0 < daily["startingDeadlineSeconds"] < 86_400, "without, a hundred missed starts end all of them"
    assert daily["schedule"] == order(project).jobs[0].cron.text
    pod = daily["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never" and daily["jobTemplate"]["spec"]["backoffLimit"] == 0
    assert pod["securityContext"]["runAsNonRoot"] is True and pod["automountServiceAccountToken"] is False
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    resources = [
        job["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["resources"] for job in (daily, weekly)
    ]
    assert all(said["requests"] == said["limits"] for said in resources)
    assert [said["limits"]["cpu"] for said in resources] == ["2", "3"]
    mounts = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]} == {"project", "tmp", "home", "store"}
    [secret] = pod["containers"][0]["envFrom"]
    assert secret == {"secretRef": {"name": "cpu-pipeline", "optional": True}}, "tokens come from there alone"


def test_a_job_has_as_many_threads_as_the_recipe_that_asks_for_most(tmp_path: Path) -> None:
    for name, threads in (("a", 2), ("b", 4), ("c", 1)):
        write_recipe(tmp_path, name, '{cron: "7 3 * * *"}', f"target: {{threads: {threads}}}")
    write_recipe(tmp_path, "d", '{cron: "7 3 * * *"}')
    [job] = order(tmp_path).jobs
    assert job.threads == 4


def test_kubernetes_needs_an_image(project: Path) -> None:
    with pytest.raises(RecipeError, match="--image"):
        made("kubernetes", project, image=None)


@pytest.mark.parametrize(
    ("codes", "code"),
    [({}, 0), ({"store pull": 75}, 0), ({"refresh": 3}, 3), ({"refresh": 3, "status": 5}, 3), ({"store push": 75}, 75),
     ({"status": 5}, 5)],
)  # fmt: skip
def test_a_cron_job_runs_everything_and_ends_as_the_first_failure(
    codes: dict[str, int], code: int, project: Path, tmp_path: Path
) -> None:
    container = cronjobs(project)[0]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    [script] = container["args"]
    assert "$(" not in script.replace("$$(", "")  # Kubernetes would read it as a variable
    path = record_calls(tmp_path / "bin", codes)
    assert shell(script.replace("$$(", "$("), path, project, *container["command"]).returncode == code
    assert calls(path) == [
        ["store", "pull", REMOTE, *RECIPES],
        ["refresh", *DAILY, "--keep-going", "--json", "--store-remote", REMOTE],
        ["store", "push", REMOTE, *RECIPES],
        ["status", *DAILY, "--max-age", "2d"],
    ]


# cron; what crontab and systemd make of their files is in tests/suites/schedulers/


def crontab(project: Path, **more: Any) -> tuple[dict[str, str], list[str]]:
    """Return the variables of a crontab, and its lines."""
    lines = [line for line in made("cron", project, **more).splitlines() if line and not line.startswith("#")]
    variables = dict(line.split("=", 1) for line in lines if line[0].isalpha())
    return variables, [line for line in lines if not line[0].isalpha()]


def test_cron_runs_what_was_meant(project: Path, tmp_path: Path) -> None:
    path = record_calls(tmp_path / "bin", {})
    program = (str(path / "cpu-pipeline"),)
    variables, lines = crontab(project, program=program, store=Path("/srv/st ore"))
    assert variables == {
        "PATH": f'"{path}:/usr/local/bin:/usr/bin:/bin"', "CPU_PIPELINE_STORE": '"/srv/st ore"',
    }  # fmt: skip
    assert len(lines) == 4
    refresh, status = (line.split(maxsplit=5) for line in lines[:2])
    assert refresh[:5] == order(project).jobs[0].cron.text.split()
    assert status[1:5] == ["12", "*", "*", "*"] and status[0] not in ("0", "30")
    assert "%" not in refresh[5].replace(r"\%", "") and "50\\%" in refresh[5]
    done = shell(refresh[5].replace(r"\%", "%"), path, tmp_path)
    assert [words[:2] for words in calls(path)] == [["store", "pull"], ["refresh", DAILY[0]], ["store", "push"]]
    assert done.returncode == 0 and (project / "cpu-pipeline-refresh-alpha.log").exists()
    done = shell(status[5].replace(r"\%", "%"), path, tmp_path)
    assert calls(path) == [["status", *DAILY, "--max-age", "2d"]] and done.stdout == ""


def test_cron_mails_the_end_of_a_log_when_a_refresh_fails(project: Path, tmp_path: Path) -> None:
    path = record_calls(tmp_path / "bin", {"refresh": 3})
    _, lines = crontab(project, program=(str(path / "cpu-pipeline"),))
    done = shell(lines[0].split(maxsplit=5)[5].replace(r"\%", "%"), path, tmp_path)
    assert "said by refresh" in done.stdout
    record_calls(tmp_path / "bin", {})
    done = shell(lines[0].split(maxsplit=5)[5].replace(r"\%", "%"), path, tmp_path)
    assert done.stdout == ""


def test_a_line_longer_than_cron_takes_is_refused(tmp_path: Path) -> None:
    for number in range(20):
        write_recipe(tmp_path, f"recipe-{number}-{'x' * 40}", '{cron: "7 3 * * *"}')
    with pytest.raises(RecipeError, match="cron takes 998"):
        made("cron", tmp_path)


def test_this_program_is_named_by_its_full_path() -> None:
    program = schedule.this_program()
    assert Path(program[0]).is_absolute() and Path(program[0]).exists()
    done = subprocess.run([*program, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("cpu-pipeline")


# systemd


def test_units_name_what_is_to_run(project: Path) -> None:
    units = schedule.files(Kind.systemd, order(project, store=Path("/srv/st ore")))
    assert set(units) == {
        f"cpu-pipeline-refresh-{name}{what}" for name in ("alpha", "weekly")
        for what in (".service", ".timer", "-status.service", "-status.timer")
    }  # fmt: skip
    daily, weekly = order(project).jobs
    assert units["cpu-pipeline-refresh-alpha.timer"].count("OnCalendar=") == 1
    assert f"OnCalendar=*-*-* 03:{daily.cron.minutes[0]:02}:00 UTC\n" in units["cpu-pipeline-refresh-alpha.timer"]
    either = [f"*-*-01,15 04:{weekly.cron.minutes[0]}:00 UTC", f"Fri *-*-* 04:{weekly.cron.minutes[0]}:00 UTC"]
    for calendar in either:
        assert f"OnCalendar={calendar}\n" in units["cpu-pipeline-refresh-weekly.timer"]
    service = units["cpu-pipeline-refresh-alpha.service"]
    assert "50%%" in service and "PrivateTmp" not in service.replace("# Not PrivateTmp", "")
    assert 'Environment="CPU_PIPELINE_STORE=/srv/st ore"' in service
    begins = [line.split("cpu-pipeline ")[0] for line in service.splitlines() if line.startswith("Exec")]
    assert begins == ["ExecStartPre=-", "ExecStart=", "ExecStopPost="], (
        "pulling may fail; pushing comes after a failure"
    )
    place = f"User={getpass.getuser()}\nWorkingDirectory={str(project).replace('%', '%%')}\n"
    assert place in service and "EnvironmentFile=-/etc/cpu-pipeline-refresh-alpha.env\n" in service
    assert all("Persistent=true\n" in units[name] for name in units if name.endswith(".timer"))


def test_words_survive_the_shell(project: Path) -> None:
    commands = order(project).on()
    for job in order(project).jobs:
        assert shlex.split(shlex.join(commands.refresh(job))) == commands.refresh(job)
