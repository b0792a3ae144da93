"""Division of CPUs and GPUs among trials."""

import pytest
from sweep_fixtures import plan_of

from study.cluster.nodes import Node
from study.cluster.resources import BATCHES, divided
from study.errors import StudyError
from study.sweep.execution import LANES_PER_GPU, Execution


def nodes(*sizes):
    """Nodes with these numbers of CPUs and GPUs."""
    return [
        Node(f"id-{place}", f"10.0.0.{place}", {"CPU": float(cpus), **({"GPU": float(gpus)} if gpus else {})})
        for place, (cpus, gpus) in enumerate(sizes)
    ]


def result(sizes, trials=24, overrides=None, **asked):
    """GPUs of each trial, and trials at once.

    The plan has `trials` trials over two methods.
    """
    plan = plan_of(trials=trials // 2, overrides={"tasks/count": 3, **(overrides or {})})
    assert plan.trial_count == trials
    made = divided(Execution(data_dir="data", **asked), plan, nodes(*sizes))
    return made.gpus_per_trial, made.workers


@pytest.mark.parametrize(
    ("sizes", "trials", "expected"),
    [
        ([(2, 0)], 24, (0.0, 2)),  # a laptop
        ([(16, 1)], 24, (1.0, 1)),  # a GPU for each worker
        ([(2, 1)], 24, (1.0, 1)),
        ([(16, 8)], 24, (1.0, 8)),
        ([(16, 8)], 4, (1.0, 8)),
        ([(4, 8)], 24, (1.0, 4)),  # no more than the CPUs allow
        ([(8, 1), (8, 1)], 24, (1.0, 2)),
        ([(4, 0), (8, 2)], 24, (1.0, 2)),  # a node without a GPU trains nothing
    ],
)
def test_gpus_are_divided_sensibly_by_default(sizes, trials, expected):
    assert result(sizes, trials) == expected


def test_a_cluster_may_grow():
    assert result([(4, 0)], address="auto") == (0.0, None)
    assert result([(4, 0)], address="auto", workers=64) == (0.0, 64)
    assert result([(4, 0)], address="local", workers=64) == (0.0, 4)


def test_trials_that_are_told_to_train_on_the_cpu_take_no_gpu():
    assert result([(16, 1)], overrides={"training/device": "cpu"}) == (0.0, 16)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"gpus_per_trial": 0.25}, (0.25, 8)),
        ({"gpus_per_trial": 1.0}, (1.0, 2)),
        ({"gpus_per_trial": 2.0}, (2.0, 1)),
        ({"gpus_per_trial": 0.0}, (0.0, 16)),
        ({"workers": 3}, (1.0, 2)),
        ({"workers": 3, "gpus_per_trial": 0.5}, (0.5, 3)),
        ({"workers": 1}, (1.0, 1)),
        ({"cpus_per_trial": 16.0}, (1.0, 1)),
        ({"cpus_per_trial": 0.5}, (1.0, 2)),
    ],
)
def test_what_the_user_asks_for_is_kept(asked, expected):
    assert result([(16, 2)], **asked) == expected


@pytest.mark.parametrize(
    ("sizes", "asked", "words"),
    [
        ([(2, 0)], {"cpus_per_trial": 3.0}, "asks for 3 CPUs, but this Ray has 2; lower --cpus-per-trial"),
        ([(2, 0), (2, 0)], {"cpus_per_trial": 3.0}, "asks for 3 CPUs, but no node of this Ray has more than 2"),
        ([(2, 0)], {"gpus_per_trial": 0.5}, "asks for 0.5 GPUs, but this Ray has 0; lower --gpus-per-trial"),
        ([(8, 0), (2, 1)], {"cpus_per_trial": 4.0, "gpus_per_trial": 0.5}, "both the 4 CPUs and the 0.5 GPUs"),
        ([(8, 2)], {"gpus_per_trial": 1.5}, "use 1, 2, ..., or a fraction below 1"),
    ],
)
def test_what_no_node_has_is_refused(sizes, asked, words):
    with pytest.raises(StudyError) as refusal:
        result(sizes, **asked)
    assert words in str(refusal.value)
    assert str(refusal.value).endswith(".")


def test_trials_that_must_have_a_gpu_are_refused_one_without():
    with pytest.raises(StudyError, match=r"^training/device=cuda, but no GPU is given"):
        result([(2, 0)], overrides={"training/device": "cuda"})
    assert result([(4, 1)], overrides={"training/device": "cuda"}) == (1.0, 1)


def pack(sizes, plan=None, **asked):
    """The size of a pack; the plan has 24 trials over two methods by default, with two seeds each."""
    plan = plan or plan_of(trials=12)
    return divided(Execution(data_dir="data", **asked), plan, nodes(*sizes)).pack


def test_a_cpu_trains_one_trial_at_a_time_unless_the_user_wants_more():
    assert pack([(16, 0)]) == 1
    assert pack([(16, 0)], pack=5) == 5
    assert pack([(16, 1)], gpus_per_trial=0.0) == 1


def test_a_gpu_trains_as_many_lanes_as_cost_hardly_more_than_one():
    grid = plan_of(space="paper_grid", scenarios=[], methods=[], trials=None, seeds=10)
    assert pack([(16, 1)], grid) == 2  # a method has two settings in each scenario
    many = plan_of(trials=100, sampler="random")
    assert pack([(16, 1)], many) == LANES_PER_GPU // 2
    assert pack([(16, 1)], plan_of(trials=100, sampler="random", seeds=LANES_PER_GPU + 1)) == 1
    assert pack([(16, 1)], many, pack=7) == 7
    assert pack([(16, 1)], many, pack=0) == LANES_PER_GPU // 2  # auto


def test_every_worker_has_a_pack():
    assert pack([(16, 8)], plan_of(trials=12, sampler="random")) == 3
    assert pack([(16, 8)], plan_of(trials=12, sampler="random"), workers=2) == 12


def test_a_sampler_that_learns_gets_something_to_learn_from():
    assert pack([(16, 1)]) == 12 // BATCHES
    assert pack([(16, 1)], plan_of(trials=2)) == 1
