"""Click-through-rate models that look at pictures.

`load` opens a published model; `prepare`, `encode`, `train` and `Run.publish` make one; `Client` asks a server.
Every function is a command of the program `ams`: its options are the command's flags, with `_` for `-`.
"""

from ._ams import InputError, InternalError, Table, __version__
from ._commands import Prepared, Report, Run, ablate, align, doctor, encode, prepare, report, synth, train, vectors
from ._model import Attention, Explained, ExplainedCandidate, Model, Page, Ranked, Similar, load
from ._requests import Behaviors, Candidates, User
from .client import AsyncClient, Client, ServerError

__all__ = [
    "AsyncClient",
    "Attention",
    "Behaviors",
    "Candidates",
    "Client",
    "Explained",
    "ExplainedCandidate",
    "InputError",
    "InternalError",
    "Model",
    "Page",
    "Prepared",
    "Ranked",
    "Report",
    "Run",
    "ServerError",
    "Similar",
    "Table",
    "User",
    "__version__",
    "ablate",
    "align",
    "doctor",
    "encode",
    "load",
    "prepare",
    "report",
    "synth",
    "train",
    "vectors",
]
