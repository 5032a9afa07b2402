"""Objectives: what turns the scores of pairs into one number to maximise.

P = p(x, y), Q = p(x)p(y), r = dP/dQ, T the critic, sp = softplus, I = E_P[log r] in nats.

| objective | joint term    | product term     | reduction     | optimal T       | value at it |
|-----------|---------------|------------------|---------------|-----------------|-------------|
| JSD       | log2 - sp(-T) | sp(T) - log2     | mean          | log r           | 2 JS(P, Q)  |
| DV, MINE  | T             | T                | log-mean-exp  | log r + c       | I           |
| NWJ       | T             | e^(T-1)          | mean          | 1 + log r       | I           |
| InfoNCE   | T             | T                | row-log-m.-e. | log r + c(x)    | <= log(K+1) |
| SMILE     | as JSD        | as JSD           | as JSD        | log r           | 2 JS(P, Q)  |

Every objective is a sum of parts, and the parts are all there is: `statistics`, `value`, per-sample
`terms`, the log-ratio and the estimate in nats follow from them. A new objective states its parts
and passes `mi_estimators.testing.check_objective`.
"""

from mi_estimators.objectives.contrastive import InfoNCE
from mi_estimators.objectives.jensen_shannon import JSD, SMILE
from mi_estimators.objectives.kullback_leibler import DV, MINE
from mi_estimators.objectives.objective import NWJ, Kind, Objective

__all__ = ["DV", "JSD", "MINE", "NWJ", "SMILE", "InfoNCE", "Kind", "Objective"]
