"""scripts/check_api.py catches every kind of breaking change in a copy of optix-protocol, and lets additions pass."""

import importlib.util
import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "packages" / "optix-protocol" / "src"


def load_script():
    spec = importlib.util.spec_from_file_location("check_api", ROOT / "scripts" / "check_api.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check_api = load_script()
RELEASED = check_api.describe(SOURCE)


@pytest.fixture
def package(tmp_path):
    """Return a function that edits a copy of the package: file, pattern, replacement (of the first match)."""
    shutil.copytree(SOURCE, tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))

    def edit(file, pattern, replacement):
        path = tmp_path / "src" / "optix_protocol" / file
        text, count = re.subn(pattern, replacement, path.read_text(), count=1)
        assert count == 1, f"{pattern!r} is not in {file}"
        path.write_text(text)
        return tmp_path / "src"

    edit.source = tmp_path / "src"
    edit.record = tmp_path / "public_api.txt"
    edit.record.write_text(RELEASED)
    return edit


def released_as(package, version):
    package("__init__.py", r'__version__ = "[^"]+"', f'__version__ = "{version}"')


MAJOR, MINOR = map(int, check_api.version_of(SOURCE).split(".")[:2])
NEXT_MINOR, NEXT_MAJOR = f"{MAJOR}.{MINOR + 1}.0", f"{MAJOR + 1}.0.0"

AGENT, CAPABILITIES, CONTRACTS, TYPES = "agent.py", "capabilities.py", "contracts.py", "types.py"
CASES, RUNNER, REPORT = "conformance/cases.py", "conformance/runner.py", "conformance/report.py"
REFERENCE, SUITE = "conformance/reference.py", "conformance/pytest_suite.py"
WEIGHT_CHECKS = "conformance/checks/weights.py"

# Where, what is replaced by what, and what must be printed, in as many lines.
BREAKING = {
    # what breaks those who call or read
    "name removed": ("__init__.py", '    "ParamBound",\n', "", ["optix_protocol.ParamBound: .* removed"]),
    "name removed elsewhere": (REFERENCE, '"ReferenceAgent", ', "", ["reference.ReferenceAgent: .* removed"]),
    "method removed": (TYPES, r"def flat\(", "def _flat(", ["EpisodeData.flat: .* removed"]),
    "hook renamed": (CONTRACTS, "def on_dormant", "def on_sleep", ["LoopCallback.on_dormant: .* removed"]),
    "parameter removed": (CASES, "    seed: int = 0,\n", "", [r"make_window\(seed\): parameter was removed"]),
    "parameter renamed": (
        CAPABILITIES, r"of\(agent: object", "of(it: object",
        [r"capabilities_of\(agent\): parameter was removed", r"capabilities_of\(it\): .* added as required"],
    ),
    "parameters swapped": (
        CASES, r"window: EpisodeData, order: Sequence\[int\]", "order: Sequence[int], window: EpisodeData",
        [r"environments\(order\): .* moved", r"environments\(window\): .* moved"],
    ),
    "parameter keyword-only": (
        CASES, r'case\(kind: ActionKind = "discrete", \*,', 'case(*, kind: ActionKind = "discrete",',
        [r"example_case\(kind\): .* kind was changed"],
    ),
    "parameter required": (
        CASES, "observation_size: int = 4", "observation_size: int", [r"example_case\(observation_size\): .* required"],
    ),
    "parameter added": (
        CASES, "observation_size: int = 4", "observation_size: int = 4, depth: int", [r"case\(depth\): .* required"],
    ),
    "default changed": (CASES, "num_steps: int = 16", "num_steps: int = 32", [r"\(num_steps\): .* default was"]),
    "parameter narrowed": (
        RUNNER, r"subject: str \| None = None", "subject: str = None",
        [r"check_agent: takes subject: str, not str \| None"],
    ),
    "result widened": (
        CASES, r"def action_kind\(space: Any\) -> ActionKind", "def action_kind(space: Any) -> ActionKind | None",
        [r"action_kind: returns ActionKind \| None, not ActionKind"],
    ),
    "field removed": (TYPES, "    generalization_gap: float.*\n", "", ["Metrics.generalization_gap: .* removed"]),
    "field added": (
        TYPES, "    episode_lengths: Array\n", "    episode_lengths: Array\n    weights: Array\n",
        ["EpisodeData: gained the field weights without a default"],
    ),
    "field required": (
        TYPES, r"gap: float \| None = None", "gap: float | None",
        ["EvalMetrics.generalization_gap: has no longer the default None"],
    ),
    "field default": (CAPABILITIES, "slow: bool = False", "slow: bool = True", ["ParamBound.slow: is True, not False"]),
    "field type": (CAPABILITIES, "low: float", "low: float | None", [r"ParamBound.low: is float \| None, not float"]),
    "dataclass options": (
        CAPABILITIES, r"@dataclass\(frozen=True, kw_only=True\)\nclass ParamBound",
        "@dataclass(frozen=True)\nclass ParamBound", [r"ParamBound: is no longer @dataclass\(frozen=True, kw_only"],
    ),
    "enum member removed": (TYPES, '    UNDECIDED = "UNDECIDED"', "", ["Verdict.UNDECIDED: .* removed"]),
    "enum value": (TYPES, '"UNDECIDED"', '"UNKNOWN"', ["Verdict.UNDECIDED: is 'UNKNOWN', not 'UNDECIDED'"]),
    "enum base": (TYPES, r"LoopState\(StrEnum\)", "LoopState(Enum)", ["LoopState: no longer inherits from StrEnum"]),
    "alias": (
        CAPABILITIES, r'Literal\["greedy", "sample"\]', 'Literal["greedy", "sample", "mean"]', ["PolicyMode: is"],
    ),
    "literal value removed": (CONTRACTS, '"multidiscrete", ', "", ["ActionKind: is Literal"]),
    "capability renamed": (CAPABILITIES, '"teardown": SupportsT', '"close": SupportsT', ["CAPABILITIES: is {"]),
    "isinstance impossible": (
        CAPABILITIES, "@runtime_checkable\nclass SupportsPolicy", "class SupportsPolicy",
        ["SupportsPolicy: is no longer @runtime_checkable"],
    ),
    "property to method": (TYPES, "    @property\n    def num_steps", "    def num_steps", ["num_steps: .* kind of"]),
    "class method": (REPORT, "    @classmethod\n", "", ["ConformanceReport.merge: is no longer @classmethod"]),
    "check removed": (WEIGHT_CHECKS, "check_load_restores", "check_load", ["checks.load_restores: .* removed"]),
    # what breaks those who implement, though no caller would notice
    "new required method": (
        CAPABILITIES, "    def teardown", "    def pause(self) -> None: ...\n\n    def teardown",
        ["SupportsTeardown: gained the member pause, which implementers lack"],
    ),
    "seventh method": (
        AGENT, "    @abstractmethod\n    def learn", "    @property\n    def name(self) -> str: ...\n\n    def learn",
        ["BaseAgent: gained the member name, which implementers lack"],
    ),
    "optional parameter": (
        CAPABILITIES, r"seed: int\) -> Policy", "seed: int, fast: bool = False) -> Policy",
        ["SupportsPolicy.make_policy: is implemented by others"],
    ),
    "looser result": (
        CONTRACTS, r"is_probing\(self\) -> bool", "is_probing(self) -> bool | None", ["is_probing: is implemented by"],
    ),
    "hook with a parameter": (
        CONTRACTS, r"on_dormant\(self, ", "on_dormant(self, *, why: str = '', ", ["on_dormant: is implemented"],
    ),
    "fixture": (SUITE, r"def case\(self\)", "def case(self, request)", ["AgentConformance.case: is implemented by"]),
}  # fmt: skip

HARMLESS = {
    "optional parameter": (CASES, "observation_size: int = 4", "observation_size: int = 4, depth: int = 1"),
    "wider parameter": (RUNNER, r"subject: str \| None = None", "subject: str | bytes | None = None"),
    "narrower result": (CASES, r"bounded: bool = True\) -> str \| None", "bounded: bool = True) -> str"),
    "field with default": (CAPABILITIES, "slow: bool = False", "slow: bool = False\n    size: int | None = None"),
    "property": (TYPES, "    def flat", "    @property\n    def size(self) -> int: ...\n\n    def flat"),
    "hook": (CONTRACTS, "    def on_dormant", "    def on_tuned(self) -> None: ...\n\n    def on_dormant"),
    "enum member": (TYPES, '    UNDECIDED = "UNDECIDED"', '    UNDECIDED = "UNDECIDED"\n    SHORT = "SHORT"'),
    "kind of action": (CONTRACTS, '"multidiscrete", ', '"multidiscrete", "dict", '),
    "capability": (CAPABILITIES, '"teardown": SupportsTeardown,', '"teardown": SupportsTeardown, "new": Policy,'),
    "name": (REFERENCE, r'"ReferenceBackend"\]', '"ReferenceBackend", "ReferencePolicy"]'),
    "check": (WEIGHT_CHECKS, "def check_load_restores", "def check_new(): ...\n\n\ndef check_load_restores"),
    "isinstance possible": (CONTRACTS, "class BaseEvaluator", "@runtime_checkable\nclass BaseEvaluator"),
}  # fmt: skip

INVISIBLE = {
    "private name": (TYPES, "class Verdict", "class _Hidden: ...\n\n\nclass Verdict"),
    "private method": (TYPES, "    def flat", "    def _size(self): ...\n\n    def flat"),
    "documentation": (AGENT, "Anything that can act and learn.", "Whatever acts and learns."),
    "body": (CAPABILITIES, r'"is_on_policy", True\)', '"is_on_policy", 1)'),
    "cached property": (TYPES, "    @property\n    def num_steps", "    @cached_property\n    def num_steps"),
    "not exported": ("conformance/subject.py", "WARM_UP_ROWS = 3072", "WARM_UP_ROWS = 4096"),
}


def test_the_record_is_up_to_date(capsys):
    assert check_api.main([]) == 0, capsys.readouterr()


@pytest.mark.parametrize("kind", BREAKING)
def test_breaking_changes_are_caught(package, kind):
    *edit, expected = BREAKING[kind]
    source = package(*edit)
    lines = check_api.breaking_changes(RELEASED, check_api.describe(source))
    assert len(lines) == len(expected) and all(map(re.search, expected, lines)), lines


@pytest.mark.parametrize("kind", ["method removed", "new required method"])
def test_a_breaking_change_is_neither_passed_nor_recorded_before_the_next_major(package, kind, capsys):
    *edit, (expected,) = BREAKING[kind]
    source = package(*edit)
    released_as(package, NEXT_MINOR)
    for arguments in ([], ["--update"]):
        assert check_api.main(arguments, source=source, record=package.record) == 1
        told = capsys.readouterr()
        assert re.search(f"^breaking: .*{expected}", told.out)
        assert f"or make it {NEXT_MAJOR}" in told.err
    assert package.record.read_text() == RELEASED


@pytest.mark.parametrize("kind", HARMLESS)
def test_additions_do_not_break_now_but_are_promised_from_then_on(package, kind):
    grown = check_api.describe(package(*HARMLESS[kind]))
    assert check_api.breaking_changes(RELEASED, grown) == []
    assert check_api.breaking_changes(grown, RELEASED) != []


@pytest.mark.parametrize("kind", ["optional parameter", "capability"])
def test_additions_pass_once_recorded_in_a_minor_release(package, kind, capsys):
    source = package(*HARMLESS[kind])
    released_as(package, f"{MAJOR}.{MINOR}.0")  # while it is under way, a version takes additions
    assert check_api.main(["--update"], source=source, record=package.record) == 1
    assert f"raise the version to {NEXT_MINOR}" in capsys.readouterr().err
    released_as(package, NEXT_MINOR)
    assert check_api.main([], source=source, record=package.record) == 1
    assert "--update" in capsys.readouterr().err
    assert check_api.main(["--update"], source=source, record=package.record) == 0
    assert check_api.main([], source=source, record=package.record) == 0


@pytest.mark.parametrize("kind", INVISIBLE)
def test_what_nobody_sees_changes_nothing(package, kind):
    assert check_api.describe(package(*INVISIBLE[kind])) == RELEASED


def test_moving_a_definition_to_another_module_changes_nothing(package):
    package(TYPES, r"RecurrentState: TypeAlias = .*\n", "from optix_protocol._states import RecurrentState\n")
    (package.source / "optix_protocol" / "_states.py").write_text("RecurrentState: TypeAlias = Mapping[str, Array]\n")
    assert check_api.describe(package.source) == RELEASED


def test_a_new_major_version_may_break_and_records_it(package, capsys):
    *edit, _ = BREAKING["method removed"]
    source = package(*edit)
    released_as(package, NEXT_MAJOR)
    assert check_api.main([], source=source, record=package.record) == 1
    assert check_api.main(["--update"], source=source, record=package.record) == 0
    assert "breaking: optix_protocol.EpisodeData.flat" in capsys.readouterr().out
    assert check_api.main([], source=source, record=package.record) == 0


def test_additions_to_an_unreleased_minor_version_need_no_third_one(package):
    released_as(package, f"{NEXT_MINOR}.dev0")
    for kind in ("field with default", "hook"):
        source = package(*HARMLESS[kind])
        assert check_api.main(["--update"], source=source, record=package.record) == 0


def test_a_missing_record_is_no_pass(package, capsys):
    package.record.unlink()
    assert check_api.main([], source=package.source, record=package.record) == 1
    assert "is missing" in capsys.readouterr().err
