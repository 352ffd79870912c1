import json
import shlex
from pathlib import Path

import pytest
import yaml

from cerebro.errors import ConfigError
from cerebro.study.plan import plan_study
from cerebro.study.recipe import read_recipe

OUT = Path("runs/tiny")


@pytest.fixture
def plan(write_recipe):
    def make(variants=(), seeds=(), code_version="test", recipe_seeds=(0,), **changes):
        changes["seeds"] = list(recipe_seeds)
        return plan_study(read_recipe(write_recipe(**changes)), OUT, variants, seeds, code_version=code_version)

    return make


def runs_of(plan, variant):
    by_identity = {run.identity: run for run in plan.runs}
    (chain,) = [chain for chain in plan.chains if chain.variant == variant]
    return {phase: by_identity[identity] for phase, identity in chain.runs.items()}


def transfers(run):
    return json.loads(run.fit[run.fit.index("--model.init") + 1]) if "--model.init" in run.fit else None


def test_the_plan_is_the_stored_one(plan, request):
    stored = request.path.parent / "stored_plan.txt"
    assert "\n".join(plan().commands()) + "\n" == stored.read_text()


def test_four_variants_of_five_phases_take_thirteen_runs(plan):
    made = plan()
    assert len(made.runs) == 13
    assert runs_of(made, "full")["pretrain"].variants == ("full", "no_contrastive")
    assert [run.phase for run in made.runs if run.test] == ["challenge1", "challenge2"] * 4


def test_a_dropped_phase_hands_its_own_init_on(plan):
    made = plan()
    full, no_contrastive = runs_of(made, "full"), runs_of(made, "no_contrastive")
    assert transfers(full["challenge1"])[0]["source"] == f"{full['contrastive'].folder}/best.ckpt"
    assert transfers(no_contrastive["challenge1"])[0]["source"] == f"{full['pretrain'].folder}/best.ckpt"
    assert "contrastive" not in no_contrastive


def test_without_pretraining_the_init_of_the_config_is_taken_away(plan):
    assert transfers(runs_of(plan(), "supervised")["challenge1"]) == []


def test_weights_from_outside_stay_where_the_recipe_names_no_other_start(write_recipe):
    recipe = read_recipe(write_recipe())
    for name in ("pretrain", "challenge1"):  # the second has init: in the recipe
        path = recipe.phases[name].config
        config = yaml.safe_load(path.read_text())
        config["model"].setdefault("init", []).append({"source": "labram-base.pth", "rows": "nearest"})
        path.write_text(yaml.safe_dump(config))
    made = plan_study(recipe, OUT, (), (), code_version="test")
    kept = {"source": "labram-base.pth", "rows": "nearest"}
    assert kept in transfers(runs_of(made, "full")["pretrain"])
    assert kept not in transfers(runs_of(made, "supervised")["challenge1"]), "without pretraining means random weights"


def test_a_run_that_starts_from_weights_from_outside_is_known_by_their_content(write_recipe):
    recipe = read_recipe(write_recipe())
    path = recipe.phases["pretrain"].config
    config = yaml.safe_load(path.read_text())
    config["model"].setdefault("init", []).append({"source": "labram-base.pth"})
    path.write_text(yaml.safe_dump(config))
    one, two = (
        plan_study(recipe, OUT, (), (), code_version="test", weights_hash=lambda file, made=content: f"{file}{made}")
        for content in ("one", "two")
    )
    assert one.weights == (Path("labram-base.pth"),)
    for phase, is_same in (("tokenizer", True), ("pretrain", False), ("challenge1", False)):
        assert (runs_of(one, "full")[phase].identity == runs_of(two, "full")[phase].identity) is is_same
    assert runs_of(one, "supervised")["challenge1"] == runs_of(two, "supervised")["challenge1"]


def test_entries_of_the_config_keep_their_other_fields(plan):
    full = runs_of(plan(), "full")
    tokenizer = f"{full['tokenizer'].folder}/best.ckpt"
    into = "objective.terms.codes.tokenizer"
    assert transfers(full["pretrain"]) == [{"source": tokenizer, "take": "", "into": into}]
    assert transfers(full["challenge1"])[0]["only"] == ["blocks"]
    assert transfers(full["contrastive"])[0]["into"] == "encoder"


def test_a_variant_may_take_another_config_for_a_phase(plan, write_recipe):
    other = {"config": {"challenge1": "../configs/challenge2.yaml"}, "set": {"challenge1": {"trainer.max_epochs": 5}}}
    path = write_recipe(ablations={"other": other}, gains=None)
    planned = plan_study(read_recipe(path), Path("runs/tiny"))
    (run,) = [run for run in planned.runs if run.variants == ("other",)]
    assert (run.phase, run.fit[3]) == ("challenge1", "configs/challenge2.yaml")
    assert run.fit[run.fit.index("--trainer.max_epochs") + 1] == "5"
    full = next(run for run in planned.runs if run.phase == "challenge1" and "full" in run.variants)
    assert full.fit[3] == "configs/challenge1.yaml"


def test_an_ablation_keeps_the_tokenizer_of_a_phase_that_it_keeps(plan):
    made = plan(ablations={"short": {"only": ["pretrain", "challenge1"]}}, gains=None)
    assert list(runs_of(made, "short")) == ["tokenizer", "pretrain", "challenge1"]


def test_phases_that_lead_to_no_test_are_left_out(plan):
    made = plan(ablations={"short": {"only": ["contrastive", "challenge1", "tokenizer"]}}, gains=None)
    assert list(runs_of(made, "short")) == ["contrastive", "challenge1"]


def test_identity_follows_everything_that_could_change_the_result(plan, write_recipe):
    base = {run.identity for run in plan().runs}
    assert {run.identity for run in plan().runs} == base
    assert not {run.identity for run in plan(code_version="other").runs} & base
    assert not {run.identity for run in plan(seeds=[1]).runs} & base
    recipe = read_recipe(write_recipe())
    other_data = plan_study(recipe, OUT, data_hash=lambda store: "other", code_version="test")
    assert not {run.identity for run in other_data.runs} & base


def test_identity_follows_the_store_that_an_override_names(write_recipe):
    ablations = {"with_tuh": {"set": {"pretrain": {"data.store": "stores/tuh"}}}}
    recipe = read_recipe(write_recipe(ablations=ablations, gains=None))
    plans = [
        plan_study(recipe, OUT, data_hash=lambda store, tuh=tuh: tuh if store == Path("stores/tuh") else "same")
        for tuh in ("one", "two")
    ]
    assert Path("stores/tuh") in plans[0].stores
    names = [{phase: run.identity for phase, run in runs_of(plan, "with_tuh").items()} for plan in plans]
    assert names[0]["pretrain"] != names[1]["pretrain"]
    assert names[0]["tokenizer"] == names[1]["tokenizer"]
    full = [{run.identity for run in runs_of(plan, "full").values()} for plan in plans]
    assert full[0] == full[1]


def test_a_change_in_a_config_changes_its_phase_and_those_after_it(plan, write_recipe):
    before = runs_of(plan(), "full")
    recipe_path = write_recipe()
    path = Path("configs/contrastive.yaml")
    path.write_text(path.read_text().replace("lr: 0.001", "lr: 0.002"))
    after = runs_of(plan_study(read_recipe(recipe_path), OUT, code_version="test"), "full")
    same = {name for name in before if before[name].identity == after[name].identity}
    assert same == {"tokenizer", "pretrain"}


def test_a_sweep_value_that_the_config_has_already_shares_its_runs(plan):
    key = "model.objective.init_args.weights.p_factor"
    sweep = {"weight": {"phase": "pretrain", "key": key, "values": [0.15, 0.3]}}
    made = plan(sweeps=sweep, ablations=None, gains=None)
    assert len(made.runs) == 5 + 4
    assert runs_of(made, "weight=0.15") == runs_of(made, "full")


def test_folds_are_set_on_every_phase(plan):
    made = plan(folds=3, ablations=None, gains=None)
    assert len(made.runs) == 15
    for run in made.runs:
        line = shlex.join(run.fit)
        assert f"--data.split.n_folds 3 --data.split.fold {run.fold}" in line


def test_null_and_lists_are_written_as_yaml_reads_them(plan):
    made = plan(ablations={"x": {"set": {"challenge1": {"model.readout": None, "model.k": [1, 2]}}}}, gains=None)
    fit = runs_of(made, "x")["challenge1"].fit
    assert yaml.safe_load(fit[fit.index("--model.readout") + 1]) is None
    assert yaml.safe_load(fit[fit.index("--model.k") + 1]) == [1, 2]


def test_chosen_variants_and_seeds_are_planned_alone(plan):
    made = plan(variants=["supervised"], seeds=[3, 4])
    assert {chain.variant for chain in made.chains} == {"supervised"}
    assert {run.seed for run in made.runs} == {3, 4}


def test_an_ablation_with_seeds_of_its_own_runs_with_these_alone(plan):
    ablations = {"once": {"only": ["challenge1"], "seeds": [4]}}
    changes = {"ablations": ablations, "gains": None}
    made = plan(**changes, recipe_seeds=[3, 4, 5])
    assert [(chain.variant, chain.seed) for chain in made.chains] == [
        ("full", 3),
        ("full", 4),
        ("once", 4),
        ("full", 5),
    ]
    asked = plan(**changes, recipe_seeds=[3, 4, 5], seeds=[5])
    assert [(chain.variant, chain.seed) for chain in asked.chains] == [("full", 5)]
    with pytest.raises(ConfigError, match=r"--variant once runs with the seeds \[4\] .* add one of its seeds"):
        plan(**changes, recipe_seeds=[3, 4, 5], seeds=[5], variants=["once"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": ["none"]}, "choose from full, no_contrastive"),
        ({"ablations": {"same": {"set": {"challenge1": {"model.optim.lr": 0.001}}}}}, "changes nothing"),
        ({"ablations": {"x": {"set": {"challenge1": {"model.optim.lr.base": 1}}}}}, "model.optim.lr is 0.001"),
        ({"ablations": {"x": {"drop": ["challenge1", "challenge2"]}}}, "leaves out every final phase"),
        (
            {"data": {"prepare": {"config": "../configs/pretrain.yaml", "store": "stores/other"}}},
            "makes stores/other and its phases read stores/demo; set data.store",
        ),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(plan, changes, message):
    with pytest.raises(ConfigError) as caught:
        plan(gains=None, **changes)
    assert message in str(caught.value)


def test_a_store_that_one_phase_reads_is_enough(plan):
    entry = {"config": "../configs/pretrain.yaml", "store": "stores/demo/"}
    parts = [{**entry, "store": "stores/part"}, entry]
    assert plan(data={"prepare": parts}).recipe.prepared == (Path("stores/part"), Path("stores/demo"))
    plan(data={"prepare": {**entry, "store": str(Path("stores/demo").absolute())}})


def test_chosen_variants_need_not_read_what_the_recipe_makes(plan):
    ablations = {"elsewhere": {"set": {"challenge1": {"data.store": "stores/other"}}}}
    data = {"prepare": {"config": "../configs/pretrain.yaml", "store": "stores/other"}}
    plan(data=data, ablations=ablations, gains=None)
    plan(data=data, ablations=ablations, gains=None, variants=["full"])


def test_a_tokenizer_without_a_place_in_the_config_is_refused(write_recipe):
    path = write_recipe()
    config = yaml.safe_load(Path("configs/pretrain.yaml").read_text())
    del config["model"]["init"]
    Path("configs/pretrain.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError, match="ends with tokenizer"):
        plan_study(read_recipe(path), OUT)


def test_a_study_looks_for_no_pretraining_and_knows_keys_by_other_names(write_recipe):
    plain = write_recipe()
    expected = plan_study(read_recipe(plain), OUT, code_version="test")
    recipe = read_recipe(write_recipe())
    for name in ("challenge1", "challenge2"):
        path = recipe.phases[name].config
        config = yaml.safe_load(path.read_text())
        config |= {"pretrain_config": "pretrain.yaml", "data_path": config["data"].pop("store"), "output_dir": "there"}
        config["freeze_backbone"] = True
        path.write_text(yaml.safe_dump(config))
    found = plan_study(recipe, OUT, code_version="test")
    assert found.stores == expected.stores
    for run in found.runs:
        is_final = run.phase.startswith("challenge")
        assert ("--pretrain_config" in run.fit) == is_final
        if is_final:
            assert run.fit[run.fit.index("--pretrain_config") + 1] == ""
    names = {run.identity for run in found.runs if run.phase == "challenge1"}
    entry = {"set": {"challenge1": {"freeze_backbone": False, "pretrain_config": "x.yaml"}}}
    changed = read_recipe(write_recipe(ablations={"trained": entry}, gains=[]))
    for name in ("challenge1", "challenge2"):
        path = changed.phases[name].config
        config = yaml.safe_load(path.read_text()) | {"freeze_backbone": True}
        path.write_text(yaml.safe_dump(config))
    trained = runs_of(plan_study(changed, OUT, code_version="test"), "trained")["challenge1"]
    assert trained.fit[trained.fit.index("--model.freeze_encoder") + 1] == "false"
    assert trained.identity not in names
