"""What models are judged by, whoever trained them."""

METRICS = ["gauc", "auc", "logloss"]


def auc(scores, labels):
    """Share of the pairs of a positive and a negative in order, ties counting half; None without pairs."""
    import numpy as np
    _, tied, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[tied]
    positives = int(labels.sum())
    pairs = positives * (len(labels) - positives)
    if pairs == 0:
        return None
    return (ranks[labels == 1].sum() - positives * (positives + 1) / 2) / pairs


def metrics(users, scores, labels):
    """GAUC (by impressions, users with both classes), AUC, log loss of these logits."""
    import numpy as np
    order = np.argsort(users, kind="stable")
    begins = np.flatnonzero(np.diff(users[order], prepend=-1))
    of_users = [(len(rows), auc(scores[rows], labels[rows])) for rows in np.split(order, begins[1:])]
    judged = [(rows, value) for rows, value in of_users if value is not None]
    logits = scores.astype(np.float64)
    losses = np.logaddexp(0, np.where(labels == 1, -logits, logits))
    return {"gauc": sum(rows * value for rows, value in judged) / sum(rows for rows, _ in judged),
            "auc": auc(scores, labels), "logloss": float(losses.mean())}


def judge_ams(run, evaluated):
    """The metrics of the predictions that `ams eval` wrote."""
    import numpy as np
    import pyarrow.parquet
    table = pyarrow.parquet.read_table(run / "predictions/test.parquet")
    users, logits, labels = (table[name].to_numpy() for name in ("user", "logit", "label"))
    _, users = np.unique(users, return_inverse=True)
    found = metrics(users, logits, labels)
    for name in METRICS:
        assert abs(found[name] - evaluated[name]) < 1e-6, (name, found[name], evaluated[name])
    return found
