"""Plan: rules as data, first match wins; resolving it gives every layer a choice, or the reason why it is kept."""

import fnmatch
import re
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any

from kernels import FORMATS, METHODS, Recipe, available, recipe
from kernels.formats import ExponentRule
from kernels.methods import STORED, method_of
from studio.core.architectures import ROLES
from studio.core.errors import PlanError
from studio.core.model import Guide, Layer, Model
from studio.core.names import printable

SCHEMA = 1
KEEP = "keep"
DEFAULT_FORMAT = "nvfp4-3t"
DEFAULT_METHOD = "hessian"
"""The best of those that need no second run of the model; without statistics it comes to one that needs none."""

EXPONENTS = ("ceil", "floor")
ACTIVATIONS = ("", "fp4")
_REASONS = 3
_TEXTS = ("name", "title", "format", "method", "exponent", "activations")


@dataclass(frozen=True, slots=True)
class Rule:
    """What to do with the layers that match every condition given; a condition left empty matches all.

    names: globs, or regular expressions after "re:", on layer names. roles: see `architectures.Role`. blocks: "0-3,7".
    format: a format name, "keep", or "" for the plan's own format. method: how codes are chosen, "" for the plan's own
    method. reason: why, shown where the layer is kept.
    optional: it may match nothing, as the rules of a preset may; otherwise that is an error.
    """

    names: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    blocks: str = ""
    format: str = ""
    reason: str = ""
    optional: bool = False
    method: str = ""

    def matches(self, layer: Layer) -> bool:
        """True when every condition holds for `layer`."""
        return self.matcher()(layer)

    def matcher(self) -> Callable[[Layer], bool]:
        """`matches`, prepared once for many layers: plain names are looked up, patterns compiled."""
        names = frozenset(name for name in self.names if not _is_pattern(name))
        patterns = [_pattern(name) for name in self.names if _is_pattern(name)]
        blocks = _block_set(self.blocks) if self.blocks else None

        def matches(layer: Layer) -> bool:
            if self.roles and layer.role not in self.roles:
                return False
            if blocks is not None and layer.block not in blocks:
                return False
            return not self.names or layer.name in names or any(found.search(layer.name) for found in patterns)

        return matches

    def __str__(self) -> str:
        parts = [*map(printable, self.names), *self.roles, *([f"blocks {self.blocks}"] if self.blocks else [])]
        return ", ".join(parts) or "every layer"


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a plan for a budget is expected to come to.

    weights: digest of the model and the choices that this holds for. nbytes: of all tensors. rel_err: the largest
    relative error of a layer. damage: see `budgets.planner.Mix`. kl: mean KL to the source per token in nats, None
    where no probes told; noise: its standard error. rules: how many of the first rules of the plan come from the
    budget. statistics: digest of what told of the inputs of layers, "" where nothing did. texts: names and SHA-256 of
    what probes were run on. curve: (bytes, what is lost) of some of the best mixes, singles: (option, bytes, what is
    lost) with every layer in one; KL, or damage where no probes told.
    """

    weights: str
    nbytes: int
    rel_err: float
    damage: float
    kl: float | None = None
    rules: int = 0
    noise: float | None = None
    statistics: str = ""
    texts: tuple[tuple[str, str], ...] = ()
    curve: tuple[tuple[int, float], ...] = ()
    singles: tuple[tuple[str, int, float], ...] = ()

    @property
    def unit(self) -> str:
        """What is lost."""
        return "damage" if self.kl is None else "predicted KL"


@dataclass(frozen=True, slots=True)
class Plan:
    """Rules, first match wins; a layer that none matches is kept.

    `exponent` is the rule for the MX formats' scales. `method` is how codes are chosen: where a layer's inputs are not
    known well enough for it, that of `kernels.methods` which needs less. `activations`: "fp4" where the inputs of all
    layers in NVFP4 are to be quantized too, as their reader runs. `prediction`: of a plan for a budget.
    """

    rules: tuple[Rule, ...]
    format: str = DEFAULT_FORMAT
    name: str = ""
    title: str = ""
    exponent: str = "ceil"
    method: str = DEFAULT_METHOD
    activations: str = ""
    prediction: Prediction | None = None

    def preceded_by(self, rules: Sequence[Rule]) -> "Plan":
        """The plan with `rules` tried first; what is predicted holds as long as they change nothing."""
        told = replace(self.prediction, rules=0) if self.prediction else None
        return replace(self, rules=(*rules, *self.rules), prediction=told) if rules else self

    @property
    def before_budget(self) -> "Plan":
        """The plan that a mix of formats was found for; itself where it is no mix."""
        own = self.prediction.rules if self.prediction else 0
        return replace(self, rules=self.rules[own:], prediction=None)

    def with_format(self, name: str) -> "Plan":
        """The plan with another format for the rules that name none."""
        return replace(self, format=name)

    def with_exponent(self, rule: str) -> "Plan":
        """The plan with another scale rule for the MX formats."""
        return replace(self, exponent=rule)

    def with_method(self, name: str) -> "Plan":
        """The plan with another method for the rules that name none."""
        return replace(self, method=name)

    def with_activations(self, name: str) -> "Plan":
        """The plan with the inputs of its layers in another format."""
        return replace(self, activations=name)

    def to_json(self) -> dict[str, Any]:
        """The plan as a JSON object with its schema version."""
        rules = [{key: value for key, value in asdict(rule).items() if value} for rule in self.rules]
        head = {"name": self.name, "title": self.title}
        body = {"format": self.format, "method": self.method, "exponent": self.exponent, "rules": rules}
        inputs = {"activations": self.activations} if self.activations else {}
        told = {"prediction": asdict(self.prediction)} if self.prediction else {}
        return {"schema": SCHEMA, **{key: value for key, value in head.items() if value}, **inputs, **body, **told}


@dataclass(frozen=True, slots=True)
class Choice:
    """The resolved plan for one layer: the recipe, or None when it is kept, with the reason.

    `rule` is the index of the rule that decided, -1 when none matched. `multipliers`: tensor scales, one per matrix, of
    codes that are taken over as they are stored. `input_scales`: multipliers of the inputs, one per matrix, where these
    are quantized too. `rounds_inputs`: readers are told to quantize them as they run. `beside`: bytes that a layout
    stores with the weight although the format has no use for them; known once the layout is (`shards.sized`).
    """

    layer: Layer
    recipe: Recipe | None
    reason: str = ""
    rule: int = field(default=-1, compare=False)
    multipliers: tuple[float, ...] = ()
    input_scales: tuple[float, ...] = ()
    rounds_inputs: bool = False
    beside: int = field(default=0, compare=False)

    @property
    def format(self) -> str:
        """Format name, or "keep"."""
        return self.recipe.format.name if self.recipe else KEEP

    @property
    def method(self) -> str:
        """Name of the method, "" for a layer that is kept."""
        return self.recipe.method if self.recipe else ""

    @property
    def taken_over(self) -> bool:
        """True where codes are those of the checkpoint."""
        return self.method == STORED

    @property
    def guide(self) -> Guide | None:
        """What is known of the layer's inputs, where the method looks at it."""
        return self.layer.guide if self.recipe and method_of(self.recipe.method).needs else None

    @property
    def nbytes(self) -> int:
        """Exact bytes that the layer's weight takes, tensor scales and what is `beside` included."""
        if self.recipe is None:
            return self.layer.kept_nbytes + self.beside
        itemsize = 4 if self.layer.kept_dtype == "F32" else 2
        packed = sum(self.recipe.format.nbytes((m.rows, m.columns), itemsize) for m in self.layer.matrices)
        return packed + self.beside


def choice_text(format_name: str, method: str) -> str:
    """A format and a method, either of which may be empty, as `hand_rules` and `--include` read them."""
    return f"{format_name}/{method}" if method else format_name


def plan_from_json(data: dict[str, Any]) -> Plan:
    """The plan in a JSON object; raises PlanError for another schema, an unknown key or a value of the wrong type."""
    if "schema" not in data:
        raise PlanError("no plan: it has no schema", hint="a plan is what this program saved as one")
    if data["schema"] != SCHEMA:
        raise PlanError(f"plan of schema {printable(data['schema'])}, this version reads schema {SCHEMA}")
    _check_keys(data, {"schema", *_TEXTS, "rules", "prediction"}, "plan")
    rules = data.get("rules")
    if not isinstance(rules, list):
        raise PlanError("plan without a list of rules")
    texts = {key: _text(data, key) for key in _TEXTS if key in data}
    told = _prediction_from_json(data["prediction"]) if "prediction" in data else None
    plan = Plan(tuple(_rule_from_json(rule, number) for number, rule in enumerate(rules, 1)), **texts, prediction=told)
    check_plan(plan)
    return plan


def _rule_from_json(data: Any, number: int) -> Rule:
    if not isinstance(data, dict):
        raise PlanError(f"rule {number} is not an object")
    _check_keys(data, set(Rule.__dataclass_fields__), f"rule {number}")
    lists = {key: data.get(key, []) for key in ("names", "roles")}
    for key, value in lists.items():
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise PlanError(f"rule {number}: {key} must be a list of texts")
    texts = {key: _text(data, key) for key in ("blocks", "format", "method", "reason") if key in data}
    optional = data.get("optional", False)
    if not isinstance(optional, bool):
        raise PlanError(f"rule {number}: optional must be true or false")
    return Rule(tuple(lists["names"]), tuple(lists["roles"]), optional=optional, **texts)


def _prediction_from_json(data: Any) -> Prediction:
    if not isinstance(data, dict):
        raise PlanError("the prediction is not an object")
    _check_keys(data, set(Prediction.__dataclass_fields__), "prediction")
    numbers: dict[str, Any] = {key: data.get(key) for key in ("nbytes", "rel_err", "damage", "kl", "noise")}
    for key, value in numbers.items():
        if not (isinstance(value, int | float) and value >= 0) and not (key in ("kl", "noise") and value is None):
            raise PlanError(f"prediction: {key} must be a number from zero on, got {printable(value)}")
    rules = data.get("rules", 0)
    if not isinstance(rules, int) or rules < 0:
        raise PlanError(f"prediction: rules must be a number of rules, got {printable(rules)}")
    texts: dict[str, Any] = {key: _text({key: "", **data}, key) for key in ("weights", "statistics")}
    rows: dict[str, Any] = {key: _rows(data, key, kinds) for key, kinds in _ROWS.items()}
    return Prediction(**texts, **numbers, rules=rules, **rows)


_ROWS: dict[str, tuple[type, ...]] = {"texts": (str, str), "curve": (int, float), "singles": (str, int, float)}


def _rows(data: dict[str, Any], key: str, kinds: tuple[type, ...]) -> tuple[Any, ...]:
    rows = data.get(key, [])
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == len(kinds) for row in rows):
        raise PlanError(f"prediction: {key} must be a list of lists of {len(kinds)}")
    for value, kind in ((value, kind) for row in rows for value, kind in zip(row, kinds, strict=True)):
        if not isinstance(value, str if kind is str else int | float):
            raise PlanError(f"prediction: {key} holds {printable(value)}, which is no {kind.__name__}")
    return tuple(map(tuple, rows))


def _check_keys(data: dict[str, Any], known: set[str], where: str) -> None:
    if unknown := sorted(set(data) - known):
        raise PlanError(f"{where}: unknown key {printable(unknown[0])!r}; known are {', '.join(sorted(known))}")


def _text(data: dict[str, Any], key: str) -> str:
    if not isinstance(data[key], str):
        raise PlanError(f"{key} must be a text, got {printable(data[key])}")
    return str(data[key])


def check_plan(plan: Plan) -> None:
    """Raise PlanError for an unknown format, method, role or exponent rule, a bad pattern or a bad range of blocks."""
    if plan.exponent not in EXPONENTS:
        raise PlanError(f"unknown exponent rule {printable(plan.exponent)!r}, choose one of {', '.join(EXPONENTS)}")
    if plan.activations not in ACTIVATIONS:
        raise PlanError(f"unknown format of activations {printable(plan.activations)!r}, the one known is fp4")
    check_format(plan.format)
    check_method(plan.method)
    for rule in plan.rules:
        if rule.format:
            check_format(rule.format)
        if rule.method:
            check_method(rule.method)
        if unknown := [role for role in rule.roles if role not in ROLES]:
            raise PlanError(f"unknown role {printable(unknown[0])!r}, choose from {', '.join(ROLES)}")
        for name in rule.names:
            _pattern(name)
        if rule.blocks:
            _block_set(rule.blocks)


def check_format(name: str) -> None:
    """Raise PlanError unless `name` is a format or "keep"."""
    if name != KEEP and name not in FORMATS:
        raise PlanError(f"unknown format {printable(name)!r}", hint=f"choose one of: {', '.join([*FORMATS, KEEP])}")


def check_method(name: str) -> None:
    """Raise PlanError for an unknown method."""
    if name not in METHODS:
        raise PlanError(f"unknown method {printable(name)!r}", hint=f"choose one of: {', '.join(METHODS)}")


def resolve(plan: Plan, model: Model) -> tuple[Choice, ...]:
    """The choice for every layer of `model`, in its order; raises PlanError as `deciding_rules` does."""
    both = zip(deciding_rules(plan, model), model.layers, strict=True)
    return tuple(choose_by_rule(plan, rule, layer) for rule, layer in both)


def deciding_rules(plan: Plan, model: Model) -> tuple[int, ...]:
    """The index of the first rule that matches each layer of `model`, -1 where none does.

    Raises PlanError for a rule that matches nothing and is not optional, as those of presets are.
    """
    check_plan(plan)
    matchers = [rule.matcher() for rule in plan.rules]
    found = tuple(map(_first_match(plan, matchers), model.layers))
    used = set(found)
    for index, rule in enumerate(plan.rules):
        if not rule.optional and index not in used and not any(map(matchers[index], model.layers)):
            what = f"the rule for {rule} matches no layer" + ("" if model.layers else ": there are none")
            raise PlanError(what, hint="list the names with: nvfp4-studio inspect")
    return found


def nothing_chosen(choices: Sequence[Choice]) -> str:
    """Why nothing will be quantized, with the usual reasons first; empty when something will be."""
    if any(choice.recipe for choice in choices):
        return ""
    if not choices:
        return "the checkpoint holds no tensors"
    reasons = Counter(choice.reason for choice in choices).most_common(_REASONS)
    said = "; ".join(f"{count:,} x {printable(reason)}" for reason, count in reasons)
    return f"the plan keeps every layer: {said}"


def _first_match(plan: Plan, matchers: Sequence[Callable[[Layer], bool]]) -> Callable[[Layer], int]:
    def first(layer: Layer) -> int:
        return next((i for i, matches in enumerate(matchers) if matches(layer)), -1)

    names = {name for rule in plan.rules for name in rule.names}
    known: dict[tuple[str, int | None, bytes], int] = {}

    def recalled(layer: Layer) -> int:
        alike = layer.name.encode(errors="surrogatepass").translate(_ONE_DIGIT) if names else b""
        key = layer.role, layer.block, alike
        if (index := known.get(key)) is None:
            index = known[key] = first(layer)
        return index

    return recalled if all(map(_takes_any_digit, names)) else first


_ONE_DIGIT = bytes.maketrans(b"123456789", b"000000000")


def _takes_any_digit(name: str) -> bool:
    """True for a pattern that matches a name with some digits whenever it matches it with others."""
    return _is_pattern(name) and not name.startswith("re:") and not any(c.isdigit() or c == "[" for c in name)


def choose_by_rule(plan: Plan, index: int, layer: Layer, method: str = "") -> Choice:
    """The choice for `layer` when rule `index` of `plan` is the first that matches it; -1 when none does.

    `method` takes the place of the one that rule or plan names.
    """
    if index < 0:
        return Choice(layer, None, layer.obstacle or "no rule of the plan matches it")
    rule = plan.rules[index]
    told = (layer.obstacle, rule.reason) if layer.role == "other" else (rule.reason, layer.obstacle)
    reason = next(filter(None, told), f"rule {index + 1} keeps it")
    method = method or rule.method or plan.method
    return choose_format(layer, rule.format or plan.format, plan.exponent, method, reason=reason, rule=index)


def choose_format(
    layer: Layer,
    name: str,
    exponent: str = "ceil",
    method: str = "max",
    *,
    reason: str = "kept by hand",
    rule: int = -1,
) -> Choice:
    """The choice of the format called `name` for `layer`: kept, for `reason` or because the format does not fit it.

    The recipe's method is what `method` comes to with what is known of the layer's inputs.
    """
    if name == KEEP:
        return Choice(layer, None, reason, rule)
    if not layer.matrices:
        return Choice(layer, None, layer.obstacle, rule)
    known = layer.guide.known if layer.guide else frozenset()
    rule_of_scales: ExponentRule = "floor" if exponent == "floor" else "ceil"
    wanted = recipe(name, rule_of_scales, method).method
    chosen = recipe(name, rule_of_scales, available(wanted, known))
    for matrix in layer.matrices:
        if misfit := chosen.format.misfit((matrix.rows, matrix.columns)):
            return Choice(layer, None, f"{name}: {misfit}", rule)
    return Choice(layer, chosen, "", rule)


def likeness(layer: Layer) -> Hashable:
    """What a choice depends on besides the rule: layers of one likeness get the same recipe, reason and size."""
    matrices = tuple((matrix.rows, matrix.columns) for matrix in layer.matrices)
    known = layer.guide.known if layer.guide else frozenset()
    stored = layer.tensor
    return layer.role, layer.shape, matrices, layer.obstacle, layer.kept_dtype, stored.dtype, stored.nbytes, known


def _is_pattern(name: str) -> bool:
    return name.startswith("re:") or any(character in name for character in "*?[")


@lru_cache(maxsize=1024)
def _pattern(name: str) -> re.Pattern[str]:
    try:
        return re.compile(name[3:] if name.startswith("re:") else r"\A" + fnmatch.translate(name))
    except re.error as error:
        raise PlanError(f"bad pattern {printable(name)!r}: {error}") from None


@lru_cache(maxsize=256)
def _block_set(text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        ends = re.fullmatch(r"\s*(\d{1,6})\s*(?:-\s*(\d{1,6})\s*)?", part)
        if not ends:
            raise PlanError(f"bad range of blocks {printable(text)!r}", hint='write it as "0-3,7"')
        found |= set(range(int(ends[1]), int(ends[2] or ends[1]) + 1))
    return frozenset(found)
