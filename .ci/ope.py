#!/usr/bin/env python3
"""Holds `ams eval --ope` against the Open Bandit Pipeline (obp) on the small Open Bandit data of its wheel: IPW, SNIPW, direct and
doubly robust to 1e-6, of six logs of 10,000 impressions.

usage: .ci/ope.py PROGRAM

obp 0.4.1 is the newest for this Python, and of the time of pandas 1.5 and numpy 1.23, which are installed with it below target/
(400 MB, a minute). It imports PyTorch, which its estimators of arrays do not use: a module of that name stands in. What is not to
be had is said, and the check left out.
"""
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
VENV = ROOT / "target/ope"
PACKAGES = ["numpy==1.23.5", "pandas==1.5.3", "scikit-learn==1.2.2", "scipy==1.10.1", "pyarrow==14.0.2", "matplotlib==3.7.5",
            "seaborn==0.12.2", "pyyaml", "tqdm", "mypy-extensions"]
TORCH = '''"""What obp imports of PyTorch."""
import sys
import types


class Tensor:
    """No array is one."""


class Names(types.ModuleType):
    """Has a class of every name."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


for name in ("nn", "optim", "utils", "utils.data"):
    sys.modules[f"torch.{name}"] = Names(f"torch.{name}")
nn, optim, utils = (sys.modules[f"torch.{name}"] for name in ("nn", "optim", "utils"))
utils.data = sys.modules["torch.utils.data"]
'''
NAMES = {"ipw": "ipw", "snipw": "snipw", "direct": "dm", "doubly-robust": "dr"}


def installed():
    """The Python of the environment with obp; none if it is not to be had."""
    python = VENV / "bin/python3"
    if not (VENV / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
        for packages in (PACKAGES, ["--no-deps", "obp==0.4.1"]):
            if subprocess.run([str(python), "-m", "pip", "install", "-q", *packages]).returncode:
                return None
        (VENV / "torch").mkdir(exist_ok=True)
        (VENV / "torch/torch.py").write_text(TORCH)
        (VENV / "complete").touch()
    return python


def case(program, behavior, campaign):
    """One log: the other policy's value by obp and by the program."""
    import numpy
    import pyarrow
    import pyarrow.parquet
    from obp import dataset, ope, policy
    from sklearn.linear_model import LogisticRegression

    data = dataset.OpenBanditDataset(behavior_policy=behavior, campaign=campaign)
    log = data.obtain_batch_bandit_feedback()
    rounds, items = log["n_rounds"], data.n_actions
    if behavior == "random":
        sampling = policy.BernoulliTS(n_actions=items, len_list=data.len_list, is_zozotown_prior=True, campaign=campaign,
                                      random_state=1)
        chosen = sampling.compute_batch_action_dist(n_sim=20_000, n_rounds=rounds)
    else:
        chosen = numpy.full((rounds, items, data.len_list), 1 / items)
    model = ope.RegressionModel(n_actions=items, len_list=data.len_list, action_context=data.action_context,
                                base_model=LogisticRegression(max_iter=1000, random_state=1))
    given = {key: log[key] for key in ("context", "action", "reward", "position", "pscore")}
    expected = model.fit_predict(**given, n_folds=2, random_state=1)
    estimators = [ope.InverseProbabilityWeighting(), ope.SelfNormalizedInverseProbabilityWeighting(), ope.DirectMethod(),
                  ope.DoublyRobust()]
    pipeline = ope.OffPolicyEvaluation(bandit_feedback=log, ope_estimators=estimators)
    theirs = pipeline.estimate_policy_values(action_dist=chosen, estimated_rewards_by_reg_model=expected)

    at = numpy.arange(rounds)
    numbers = pyarrow.list_(pyarrow.float64())
    columns = {
        "user": [f"r{row}" for row in at], "item": [str(item) for item in log["action"]], "clicked": log["reward"],
        "propensity": log["pscore"], "candidates": [[str(item) for item in range(items)]] * rounds,
        "evaluated": pyarrow.array(list(chosen[at, :, log["position"]]), numbers),
        "reward": pyarrow.array(list(expected[at, :, log["position"]]), numbers),
    }
    path = VENV / f"{behavior}-{campaign}.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    words = [program, "eval", "--ope", str(path), "--policy-probabilities", "evaluated", "--expected", "reward", "--json"]
    ours = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    values = {each["estimator"]: each["value"] for each in ours["estimates"]}
    wrong = []
    for name, other in NAMES.items():
        value, reference = values[name], float(theirs[other])
        difference = abs(value["mean"] - reference)
        print(f"{behavior:>6} {campaign:>5} {name:>13} {value['mean']:.9f} obp {reference:.9f} difference {difference:.1e}"
              f" [{value['low']:.6f}, {value['high']:.6f}]")
        if not difference <= 1e-6:
            wrong.append(f"{behavior} {campaign} {name}: {value['mean']}, obp says {reference}")
    return wrong


def main():
    program = str(pathlib.Path(sys.argv[1]).resolve())
    if sys.argv[2:] == ["compare"]:
        import logging
        import warnings
        warnings.simplefilter("ignore")
        logging.disable()
        wrong = [line for behavior in ("random", "bts") for campaign in ("all", "men", "women")
                 for line in case(program, behavior, campaign)]
        sys.exit("\n".join(wrong) if wrong else 0)
    python = installed()
    if python is None:
        print("skipped: obp or the packages of its time are not to be had")
        return
    stand_in = {"PYTHONPATH": str(VENV / "torch"), "PATH": "/usr/bin:/bin"}
    sys.exit(subprocess.run([str(python), __file__, program, "compare"], env=stand_in).returncode)


if __name__ == "__main__":
    main()
