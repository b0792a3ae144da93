"""Every part fulfils the contract of its kind.

A new file in a folder of parts is tested here with no other change.
"""

import functools
import inspect
import itertools
import math
import urllib.error
import urllib.request

import pytest
import tiny
import torch
from sweep_fixtures import REPOSITORY
from torch import Tensor, nn

from study import parts, schema
from study.config import StrictSettings
from study.contracts import Counted, Dataset, DirectModel, Intervention, Learner, Portable, Selective
from study.errors import StudyError
from study.gradients import MinibatchGradient
from study.lanes import Tensors, per_lane
from study.models import StackedModule
from study.optimizers import SharpnessSettings

PARTS = [(kind, name) for kind in parts.KINDS for name in parts.names(kind)]
SIGNATURES = {
    "data": ["settings", "folder"],
    "tasks": ["settings", "dataset", "seeds"],
    "models": ["settings", "shape", "outputs"],
    "optimizers": ["settings", "lanes", "device"],
    "interventions": ["settings", "seeds", "device"],
    "operations": ["settings"],
}
SEEDS = (4, 0, 9)
FEATURES, OUTPUTS, BATCH = 256, 4, 6
SHAPE = (1, 16, 16)


def each(kind: str):
    """Runs a test for every part of a kind."""
    return pytest.mark.parametrize("name", parts.names(kind))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


# --- the registry ----------------------------------------------------------------------------------------------------


def test_the_folders_hold_the_parts_that_the_study_is_about():
    registered = {kind: set(parts.names(kind)) for kind in parts.KINDS}
    assert registered["data"] >= {"mnist", "fashion_mnist", "mnist5k"}
    assert registered["tasks"] >= {"class_pairs", "permuted_pixels"}
    assert registered["models"] >= {"mlp"}
    assert registered["optimizers"] >= {"sgd", "sam", "gnp", "adamw", "asam", "friendly_sam", "random_sam"}
    assert registered["interventions"] >= {"l2_init", "shrink_and_perturb"}


@pytest.mark.parametrize("kind", parts.KINDS)
def test_a_part_that_is_not_there_is_refused_under_the_name_of_its_kind(kind):
    with pytest.raises(StudyError, match=f"^unknown {parts.KINDS[kind]} 'nothing of that name'; .*[.]$"):
        parts.find(kind, "nothing of that name")


@pytest.mark.parametrize("name", ["__init__", "../optimizers/sgd", "os", ""])
def test_only_files_of_the_folder_are_parts(name):
    with pytest.raises(StudyError, match="unknown model"):
        parts.find("models", name)


def test_a_module_with_a_leading_underscore_is_no_part():
    """It is what parts share, or what one of them is made of."""
    private = {path.stem for kind in parts.KINDS for path in (REPOSITORY / "study" / kind).glob("_[!_]*.py")}
    assert "_outer_products" in private
    assert private.isdisjoint(name for kind in parts.KINDS for name in parts.names(kind))
    with pytest.raises(StudyError, match="unknown model"):
        parts.find("models", "_outer_products")


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_a_part_says_what_it_is_and_how_it_is_built(kind, name):
    module = parts.find(kind, name)
    for described in (module, module.Settings, module.build):
        assert inspect.getdoc(described), described
        assert len(inspect.getdoc(described).splitlines()[0]) > 15, described
    assert module.Settings.__doc__ is not StrictSettings.__doc__
    assert list(inspect.signature(module.build).parameters) == SIGNATURES[kind]


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_every_setting_has_a_default_and_a_description(kind, name):
    declared = parts.find(kind, name).Settings
    assert issubclass(declared, StrictSettings)
    for word, field in declared.model_fields.items():
        assert not field.is_required(), word
        assert field.description, word
        assert field.description.endswith("."), word
        assert "/" not in (field.alias or word), "a slash separates the parts of a name"
    assert parts.settings(kind, name, {}, "").plain().keys() == set(parts.public_names(declared))


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_settings_survive_their_plain_form(kind, name):
    settings = parts.settings(kind, name, {}, "")
    assert parts.settings(kind, name, settings.plain(), "") == settings
    hash(settings)


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_an_unknown_setting_is_refused_with_the_known_ones(kind, name):
    with pytest.raises(StudyError) as refusal:
        parts.settings(kind, name, {"no_such_setting": 1}, f"{kind}/")
    assert f"{name!r} has no setting '{kind}/no_such_setting'" in str(refusal.value)
    for word in parts.public_names(parts.find(kind, name).Settings):
        assert word in str(refusal.value)


# --- data ------------------------------------------------------------------------------------------------------------


@each("data")
def test_a_data_set_is_bytes_with_labels_from_0(name, request, tmp_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise urllib.error.URLError("no network in this test")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    tiny.image_files(tmp_path / "images", ("cat", "dog"), 5)
    module, settings = tiny.part("data", name)
    try:
        built = module.build(settings, tmp_path)
    except StudyError:
        folder = request.getfixturevalue("data_dir")
        if not module.files(folder).is_dir():
            pytest.skip(f"{name} is not on this machine; tests/data/ reads tiny files of its format")
        built = module.build(settings, folder)
    assert isinstance(built, Dataset)
    assert built.name == name
    assert len(built.fingerprint) == 16
    for images, labels in ((built.train_images, built.train_labels), (built.test_images, built.test_labels)):
        assert images.dtype == torch.uint8
        assert labels.dtype == torch.int64
        assert images.shape == (len(labels), math.prod(built.shape))
        assert images.is_contiguous()
        assert sorted(labels.unique().tolist()) == list(range(built.class_count))


# --- task sequences --------------------------------------------------------------------------------------------------


@each("tasks")
@pytest.mark.parametrize("fraction", [0.0, 0.25])
def test_a_task_points_into_the_data_set_and_gives_each_of_its_labels_an_output(name, fraction):
    images = tiny.dataset(classes=5)
    module, settings = tiny.part("tasks", name, {"validation_fraction": fraction, "images_per_task": 6, "count": 4})
    sequence = module.build(settings, images, SEEDS)
    assert sequence.count == 4
    assert sequence.has_validation == (fraction > 0)
    for index in range(sequence.count):
        task = sequence.task(index)
        assert task.name
        for chosen, labels in (
            (task.train, images.train_labels),
            (task.validation, images.train_labels),
            (task.test.expand(3, -1), images.test_labels),
        ):
            assert chosen.dtype == torch.int64
            assert len(chosen) == len(SEEDS)
            for lane in chosen:
                assert len(lane.unique()) == len(lane)
                outputs = task.outputs[labels[lane]]
                assert ((outputs >= 0) & (outputs < sequence.output_count)).all()
        assert task.train.shape == (3, 6)
        assert (task.validation.shape[1] > 0) == sequence.has_validation
        assert len(task.test) > 0
        assert task.outputs.shape == (5,)
        assert sorted(task.outputs[task.outputs >= 0].tolist()) == list(range(sequence.output_count))
        if task.pixel_order is not None:
            expected = torch.arange(tiny.FEATURES).expand(3, -1)
            assert torch.equal(task.pixel_order.sort(dim=1).values, expected)


@each("tasks")
def test_the_names_of_tasks_differ(name):
    module, settings = tiny.part("tasks", name)
    sequence = module.build(settings, tiny.dataset(classes=5), (0,))
    names = [sequence.task(index).name for index in range(sequence.count)]
    assert len(set(names)) == sequence.count


# --- models ----------------------------------------------------------------------------------------------------------


def network(name: str):
    module, settings = tiny.part("models", name)
    return module.build(settings, SHAPE, OUTPUTS)


@each("models")
def test_initial_parameters_of_a_lane_depend_on_its_seed_alone(name):
    model = network(name)
    params = model.initial(SEEDS)
    for lane, seed in enumerate(SEEDS):
        alone = model.initial((seed,))
        assert alone.keys() == params.keys()
        for key, value in alone.items():
            assert torch.equal(value[0], params[key][lane]), key
    for key, value in params.items():
        assert value.shape[0] == 3
        assert value.dtype == torch.float32
        assert not torch.equal(value[0], value[1]) or not value.any(), key


def assert_fresh_weights(model) -> None:
    """Weights of another purpose or task differ from those that a network starts with, and repeat."""
    start = model.initial(SEEDS)
    assert all(torch.equal(value, start[key]) for key, value in model.initial(SEEDS, "initial weights", 0).items())
    fresh = [model.initial(SEEDS, "reset", 1), model.initial(SEEDS, "reset", 2), model.initial(SEEDS, "other", 1)]
    for params, others in itertools.combinations([start, *fresh], 2):
        for key, value in params.items():
            assert value.shape == others[key].shape
            assert not torch.equal(value, others[key]) or not value.any(), key
    alone = model.initial(SEEDS[1:2], "reset", 2)
    assert all(torch.equal(value[0], fresh[1][key][1]) for key, value in alone.items())


@each("models")
def test_fresh_weights_are_a_function_of_seed_purpose_and_task(name):
    assert_fresh_weights(network(name))


def test_fresh_weights_of_a_module_are_a_function_of_seed_purpose_and_task():
    assert_fresh_weights(StackedModule(lambda: nn.Sequential(nn.Flatten(), nn.Linear(FEATURES, OUTPUTS)), SHAPE))


@each("models")
def test_a_model_returns_logits_and_the_activations_of_its_hidden_layers(name):
    model = network(name)
    params = model.initial(SEEDS)
    logits, hidden = model.forward(params, draw(3, BATCH, FEATURES))
    assert logits.shape == (3, BATCH, OUTPUTS)
    assert len(hidden) == len(model.hidden_layers) > 0
    for layer, activations in zip(model.hidden_layers, hidden, strict=True):
        lanes, batch, units = activations.shape
        assert (lanes, batch) == (3, BATCH)
        assert layer.incoming
        for key in layer.incoming:
            assert params[key].shape[1] == units
        assert params[layer.outgoing].shape[-1] == units


def without(params: Tensors, key: str, axis: int, unit: int, value: float | None = 0.0) -> Tensors:
    """The parameters with one unit's slice of a tensor set to `value`, or to random numbers if it is None."""
    changed = params[key].clone()
    piece = changed.select(axis, unit)
    piece.copy_(draw(*piece.shape, seed=7) if value is None else torch.full_like(piece, value))
    return params | {key: changed}


@each("models")
def test_a_hidden_unit_acts_through_its_outgoing_weights_and_nothing_else(name):
    """If they are 0, the unit's incoming weights change no logit; otherwise they do."""
    model = network(name)
    inputs = draw(3, BATCH, FEATURES)
    params = model.initial(SEEDS)
    _, hidden = model.forward(params, inputs)
    for index, layer in enumerate(model.hidden_layers):
        unit = int(hidden[index].sum((0, 1)).argmax())
        fed_otherwise = params
        for key in layer.incoming:
            fed_otherwise = without(fed_otherwise, key, 1, unit, None)
        cut, cut_and_fed_otherwise = (without(start, layer.outgoing, -1, unit) for start in (params, fed_otherwise))
        expected, logits = model.forward(cut, inputs)[0], model.forward(cut_and_fed_otherwise, inputs)[0]
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-6)
        whole, changed = model.forward(params, inputs)[0], model.forward(fed_otherwise, inputs)[0]
        assert float((whole - expected).abs().max()) > 1e-4, "cutting a living unit off changes the logits"
        assert float((whole - changed).abs().max()) > 1e-4


@each("models")
def test_the_incoming_weights_of_a_hidden_unit_feed_that_unit_and_no_other_of_its_layer(name):
    model = network(name)
    inputs = draw(3, BATCH, FEATURES)
    params = model.initial(SEEDS)
    _, hidden = model.forward(params, inputs)
    for index, layer in enumerate(model.hidden_layers):
        unit = int(hidden[index].sum((0, 1)).argmax())
        silent = params
        for key in layer.incoming:
            silent = without(silent, key, 1, unit)
        _, computed = model.forward(silent, inputs)
        assert not computed[index][:, :, unit].any(), "a unit that nothing feeds is 0"
        others = torch.arange(hidden[index].shape[2]) != unit
        torch.testing.assert_close(computed[index][:, :, others], hidden[index][:, :, others], rtol=0, atol=1e-6)
        for before in range(index):
            assert torch.equal(computed[before], hidden[before])


@each("models")
def test_the_lanes_of_a_model_are_independent(name):
    model = network(name)
    inputs, params = draw(3, BATCH, FEATURES), model.initial(SEEDS)
    logits, hidden = model.forward(params, inputs)
    other_params = {key: torch.cat([value[:1], value[1:] * 3 + 1]) for key, value in params.items()}
    other_inputs = torch.cat([inputs[:1], 1 - inputs[1:]])
    computed, activations = model.forward(other_params, other_inputs)
    assert torch.equal(computed[0], logits[0])
    assert not torch.equal(computed[1], logits[1])
    for ours, theirs in zip(activations, hidden, strict=True):
        assert torch.equal(ours[0], theirs[0])
    leaves = {key: value.clone().requires_grad_() for key, value in params.items()}
    model.forward(leaves, inputs)[0][0].square().sum().backward()
    for key, leaf in leaves.items():
        assert leaf.grad[0].any(), key
        assert not leaf.grad[1:].any(), key


@each("models")
def test_a_model_changes_nothing_that_it_is_given(name):
    model = network(name)
    inputs, params = draw(3, BATCH, FEATURES), model.initial(SEEDS)
    kept_inputs, kept = inputs.clone(), {key: value.clone() for key, value in params.items()}
    model.forward(params, inputs)
    assert torch.equal(inputs, kept_inputs)
    assert all(torch.equal(value, kept[key]) for key, value in params.items())


def direct(name) -> DirectModel:
    """The network, if it knows its own gradient; otherwise skips the test."""
    model = network(name)
    if not isinstance(model, DirectModel):
        pytest.skip("it is differentiated by autograd")
    return model


@each("models")
@pytest.mark.parametrize("batch", [1, BATCH, 200])
@tiny.float64()
def test_a_model_that_knows_its_gradient_agrees_with_autograd(name, batch):
    """At the parameters, displaced along the gradient, and in every operation on a gradient."""
    model = direct(name)
    params, inputs = model.initial(SEEDS), draw(3, batch, FEATURES).double()
    labels = torch.randint(0, OUTPUTS, (3, batch), generator=torch.Generator().manual_seed(1))
    scale, weight = torch.tensor([0.3, 0.0, -2.0]), torch.tensor([1.5, 0.25, -1.0])
    ours, theirs = model.gradient_function(inputs, labels), MinibatchGradient(model, inputs, labels)
    before = {key: value.clone() for key, value in params.items()}
    here, expected_here = ours(params), theirs(params)
    uphill, expected_uphill = (
        gradient_at.displaced(params, at, scale) for gradient_at, at in ((ours, here), (theirs, expected_here))
    )
    assert all(torch.equal(value, before[key]) for key, value in params.items()), "asking changes nothing"
    mixed = here.gradient.combined(scale, uphill.gradient, weight)
    expected_mixed = expected_here.gradient.combined(scale, expected_uphill.gradient, weight)
    for mine, expected in ((here, expected_here), (uphill, expected_uphill)):
        torch.testing.assert_close(mine.logits, expected.logits, rtol=1e-12, atol=1e-12)
    for mine, expected in (
        (here.gradient, expected_here.gradient),
        (uphill.gradient, expected_uphill.gradient),
        (mixed, expected_mixed),
    ):
        torch.testing.assert_close(mine.norm(), expected.norm(), rtol=1e-10, atol=1e-12)
        moved = {key: value.clone() for key, value in params.items()}
        mine.add_to(moved, scale)
        written, wanted = mine.tensors(), expected.tensors()
        assert written.keys() == wanted.keys() == params.keys()
        for key, value in params.items():
            torch.testing.assert_close(written[key], wanted[key], rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(moved[key], value + per_lane(scale, value) * wanted[key], rtol=1e-10, atol=1e-12)
    (_, product), (_, expected_product) = ours.with_hessian_product(params), theirs.with_hessian_product(params)
    for key, value in expected_product.tensors().items():
        torch.testing.assert_close(product.tensors()[key], value, rtol=1e-10, atol=1e-12)


@each("models")
@pytest.mark.parametrize("count", [1, 40, FEATURES])
@tiny.float64()
def test_a_model_that_takes_some_features_computes_what_it_computes_with_zeros_elsewhere(name, count):
    model = network(name)
    if not isinstance(model, Selective):
        pytest.skip("it sees whole images")
    params, inputs = model.initial(SEEDS), draw(3, BATCH, count).double()
    shuffled = [torch.randperm(FEATURES, generator=torch.Generator().manual_seed(lane)) for lane in range(3)]
    features = torch.stack(shuffled)[:, :count]
    everything = torch.zeros(3, BATCH, FEATURES).scatter(2, features.unsqueeze(1).expand(inputs.shape), inputs)
    taken = model.take_features(params, features)
    expected, logits = model.forward(params, everything)[0], model.forward(taken, inputs)[0]
    torch.testing.assert_close(logits, expected, rtol=1e-12, atol=1e-12)
    for key, value in taken.items():
        assert torch.equal(model.take_features({key: params[key]}, features)[key], value), "a part of them alone"
    other = {key: draw(*value.shape, seed=3).double() for key, value in taken.items()}
    together = model.put_features(params, features, other)
    assert all(torch.equal(value, other[key]) for key, value in model.take_features(together, features).items())
    rest = torch.stack(shuffled)[:, count:]
    left, kept = model.take_features(together, rest), model.take_features(params, rest)
    assert all(torch.equal(left[key], kept[key]) for key in params if taken[key].shape != params[key].shape)


@each("models")
def test_a_model_that_knows_its_size_has_as_many_parameters(name):
    model = network(name)
    if not isinstance(model, Counted):
        pytest.skip("it does not know its size")
    assert model.parameter_count == sum(value[0].numel() for value in model.initial((0,)).values())


@each("models")
def test_the_layers_of_a_model_that_can_be_exported_compute_what_it_computes(name):
    model = network(name)
    if not isinstance(model, Portable):
        pytest.skip("it cannot be exported")
    params, inputs = model.initial(SEEDS), draw(1, BATCH, FEATURES)
    logits, _ = model.forward(params, inputs)
    for lane in range(3):
        with torch.no_grad():
            torch.testing.assert_close(torch.nn.Sequential(*model.layers(params, lane))(inputs[0]), logits[lane])


@each("models")
def test_a_model_takes_inputs_that_all_lanes_share(name):
    model = network(name)
    params, inputs = model.initial(SEEDS), draw(1, BATCH, FEATURES)
    shared, hidden = model.forward(params, inputs)
    apart, hidden_apart = model.forward(params, inputs.expand(3, -1, -1))
    for ours, theirs in zip((shared, *hidden), (apart, *hidden_apart), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_an_mlp_without_hidden_layers_is_a_linear_classifier():
    model = tiny.mlp(FEATURES, OUTPUTS, [])
    params, inputs = model.initial(SEEDS), draw(3, BATCH, FEATURES)
    logits, hidden = model.forward(params, inputs)
    assert (model.hidden_layers, hidden) == ((), [])
    torch.testing.assert_close(logits, inputs @ params["0/weight"].mT + params["0/bias"].unsqueeze(1))


def test_an_mlp_starts_as_torch_linear_does():
    """Uniform within 1/sqrt(fan_in) of zero, weights and biases."""
    params = tiny.mlp(400, 10, [300]).initial((0, 1))
    for key, fan_in in (("0/weight", 400), ("0/bias", 400), ("1/weight", 300), ("1/bias", 300)):
        bound = fan_in**-0.5
        assert float(params[key].abs().max()) <= bound
        if key.endswith("weight"):
            assert float(params[key].abs().max()) > 0.99 * bound
            assert float(params[key].std()) == pytest.approx(bound / 3**0.5, rel=0.03)
            assert abs(float(params[key].mean())) < 0.05 * bound


# --- optimizers ------------------------------------------------------------------------------------------------------


@each("optimizers")
def test_an_optimizer_trains_a_tiny_task_and_is_deterministic(name):
    lr = 20 * parts.settings("optimizers", name, {}, "").lr  # 0.2, and 0.02 for AdamW, whose steps are longer

    def run():
        return tiny.results(
            tiny.experiment(
                name,
                {"lr": lr},
                images=tiny.dataset(train_per_class=30, test_per_class=20),
                widths=(16,),
                passes=15,
                task_settings={"count": 1},
            )
        )

    (one,), (other,) = run(), run()
    assert (one.test_accuracy > 0.8).all()
    assert not one.state.diverged.any()
    for measure in tiny.MEASURES:
        assert torch.equal(getattr(one, measure), getattr(other, measure)), measure
    tensors = tiny.state_tensors(other.state)
    for key, value in tiny.state_tensors(one.state).items():
        assert torch.equal(value, tensors[key]), key


@each("optimizers")
@pytest.mark.parametrize("given", [{}, {"momentum": 0.9}])
def test_the_settings_and_the_memory_of_an_optimizer_have_a_lane_axis(name, given):
    params = tiny.mlp(FEATURES, OUTPUTS, [5]).initial(SEEDS)
    if "momentum" not in parts.public_names(parts.find("optimizers", name).Settings):
        given = {}
    optimizer = tiny.rule(name, 3, **given)
    settings = [value for value in vars(optimizer).values() if isinstance(value, Tensor)]
    assert settings
    assert all(value.shape == (3,) for value in settings)
    assert all(len(value) == 3 for value in optimizer.initial_memory(params).values())
    assert optimizer.evaluations_per_step == tiny.EVALUATIONS.get(name, 2)


@each("optimizers")
def test_an_optimizer_that_takes_more_than_one_gradient_has_a_base_and_a_schedule(name):
    params = tiny.mlp(FEATURES, OUTPUTS, [5]).initial(SEEDS)
    declared = parts.find("optimizers", name).Settings
    assert issubclass(declared, SharpnessSettings) == (tiny.EVALUATIONS.get(name, 2) > 1)
    if issubclass(declared, SharpnessSettings):
        optimizer = tiny.rule(name, 3, base="adamw", schedule="linear")
        assert optimizer.initial_memory(params).keys() >= {"m:0/weight", "v:1/bias", "adamw step", "schedule factor"}
        assert optimizer.evaluations_per_step == tiny.rule(name, 3).evaluations_per_step
        assert not optimizer.rests_where_flat


@each("optimizers")
def test_the_constants_of_an_optimizer_are_numbers_that_the_schema_declares(name):
    constants = tiny.rule(name, 3).constants
    assert constants
    assert constants.keys() <= {quantity.name for quantity in schema.RULE}
    assert all(type(value) is float for value in constants.values())


# --- interventions ---------------------------------------------------------------------------------------------------


def built(name: str, seeds: tuple[int, ...] = SEEDS) -> Intervention:
    module, settings = tiny.part("interventions", name)
    return module.build(settings, seeds, "cpu")


MODEL = tiny.mlp(FEATURES, OUTPUTS, [5])
"""The network that interventions act on."""


def acted(acting: Intervention, start: Tensors, now: Tensors) -> tuple[Learner, Tensor | None]:
    """The learner and the loss term after every action of an intervention, after steps thrice.

    Training began at `start`, the weights are `now`, and so is the rule's memory.
    """
    state = acting.initial_state(start, MODEL)
    term = acting.loss_term(now, state)
    learner = Learner(now, now, state)
    for _ in range(3):
        learner = tiny.stepped(acting, MODEL, learner.params, learner.memory, learner.state)
    return tiny.crossed(acting, MODEL, learner.params, learner.memory, learner.state), term


@each("interventions")
def test_an_intervention_has_an_effect(name):
    start = MODEL.initial(SEEDS)
    now = {key: value - 0.1 for key, value in start.items()}  # all units are silent
    learner, term = acted(built(name), start, now)
    assert (term is not None and bool(term.any())) or any(not torch.equal(learner.params[key], now[key]) for key in now)


@each("interventions")
def test_what_an_intervention_does_to_a_lane_depends_on_that_lane_alone(name):
    start = MODEL.initial(SEEDS)
    now = {key: value - 0.1 for key, value in start.items()}  # all units are silent
    learner, term = acted(built(name), start, now)
    assert term is None or term.shape == (3,)
    for changed in (learner.params, learner.memory):
        assert {key: value.shape for key, value in changed.items()} == {key: value.shape for key, value in now.items()}
    assert all(len(value) == 3 for value in learner.state.values())
    for lane, seed in enumerate(SEEDS):
        one, other = ({key: value[lane : lane + 1].clone() for key, value in full.items()} for full in (start, now))
        alone, term_alone = acted(built(name, (seed,)), one, other)
        groups = (alone.params, learner.params), (alone.memory, learner.memory), (alone.state, learner.state)
        for ours, theirs in groups:
            assert ours.keys() == theirs.keys()
            for key, value in ours.items():
                torch.testing.assert_close(value[0], theirs[key][lane], rtol=0, atol=1e-6)
        if term is not None:
            torch.testing.assert_close(term_alone[0], term[lane])


@each("interventions")
def test_an_intervention_changes_nothing_that_it_is_given_but_after_a_step(name):
    start = MODEL.initial(SEEDS)
    kept = {key: value.clone() for key, value in start.items()}
    acting = built(name)
    state = acting.initial_state(start, MODEL)
    kept_state = {key: value.clone() for key, value in state.items()}
    now = {key: value + 0.1 for key, value in start.items()}
    acting.loss_term(now, state)
    tiny.crossed(acting, MODEL, now, now, state)
    assert all(torch.equal(value, kept[key]) for key, value in start.items())
    assert all(torch.equal(value, kept[key] + 0.1) for key, value in now.items())
    assert all(torch.equal(value, kept_state[key]) for key, value in state.items())
    for value in now.values():
        value.fill_(0)
    for value in start.values():
        value.fill_(0)
    assert all(torch.equal(value, kept_state[key]) for key, value in state.items()), "its state is a copy"


@functools.cache
def left_alone_by(optimizer: str) -> Tensors:
    """Weights that an optimizer trains without interventions."""
    return tiny.results(tiny.experiment(optimizer, {}, task_settings={"count": 2}))[-1].state.params


@each("interventions")
def test_an_intervention_trains_with_every_optimizer(name):
    for optimizer in parts.names("optimizers"):
        experiment = tiny.experiment(optimizer, {}, interventions={name: {}}, task_settings={"count": 2})
        acted_on, left_alone = tiny.results(experiment)[-1].state.params, left_alone_by(optimizer)
        assert all(value.isfinite().all() for value in acted_on.values())
        assert any(not torch.equal(value, left_alone[key]) for key, value in acted_on.items()), optimizer


@each("interventions")
def test_an_intervention_does_the_same_whichever_way_pixels_are_permuted(name):
    experiment = tiny.experiment("sam", {"momentum": 0.9}, interventions={name: {}}, task_settings={"count": 3})
    fast, plain = tiny.results(experiment)[-1].state, tiny.results(tiny.plainly(experiment))[-1].state
    for ours, theirs in zip(fast.weights.groups, plain.weights.groups, strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            torch.testing.assert_close(value, theirs[key], rtol=1e-4, atol=1e-5)
