"""Objectives: what turns the scores of pairs into one number to maximise.

P = p(x, y), Q = p(x)p(y), r = dP/dQ, T the critic, sp = softplus, I = E_P[log r] in nats.

| objective        | joint term    | product term | reduction        | optimal T    | value at it |
|------------------|---------------|--------------|------------------|--------------|-------------|
| JSD, SMILE       | log2 - sp(-T) | sp(T) - log2 | mean             | log r        | 2 JS(P, Q)  |
| DV, MINE         | T             | T            | log-mean-exp     | log r + c    | I           |
| NWJ              | T             | e^(T-1)      | mean             | 1 + log r    | I           |
| InfoNCE          | T             | T            | row-log-mean-exp | log r + c(x) | <= log(K+1) |
| AlphaInfoNCE     | T - 1         | T - 1        | interpolated     | 1 + log r    | <= I        |
| InfoNCEAnchor    | T             | T            | anchored         | log r        | of scenes   |
| SquaredHellinger | 1 - e^-T      | e^T - 1      | mean             | 1/2 log r    | 2 (1 - BC)  |
| PearsonChi2      | T             | T^2/4 + T    | mean             | 2 (r - 1)    | chi^2(P, Q) |
| ReverseKL        | 1 - e^-T      | T            | mean             | log r        | KL(Q, P)    |

These need a critic that is a density over x given y; CLUB and L1Out are not maximised over it, but
bound I from above at the true density, and are minimised over what makes x and y:

| objective        | joint term    | product term | reduction        | critic       | value at it |
|------------------|---------------|--------------|------------------|--------------|-------------|
| LogLikelihood    | T             | none         | no product       | log density  | H(Y)-H(X,Y) |
| CLUB             | T             | T            | row-mean         | log density  | Jeffreys    |
| L1Out            | T             | T            | positive left out| log density  | >= I        |

Every objective is a sum of parts, and the parts are all there is: `statistics`, `value`, per-sample
`terms`, the log-ratio and the estimate in nats follow from them. A new objective states its parts
and passes `mi_estimators.testing.check_objective`.
"""

from mi_estimators.objectives.contrastive import AlphaInfoNCE, InfoNCE, InfoNCEAnchor
from mi_estimators.objectives.f_divergences import PearsonChi2, ReverseKL, SquaredHellinger
from mi_estimators.objectives.jensen_shannon import JSD, SMILE
from mi_estimators.objectives.kullback_leibler import DV, MINE
from mi_estimators.objectives.objective import NWJ, Kind, Objective
from mi_estimators.objectives.upper_bounds import CLUB, L1Out, LogLikelihood

__all__ = [
    "CLUB",
    "DV",
    "JSD",
    "MINE",
    "NWJ",
    "SMILE",
    "AlphaInfoNCE",
    "InfoNCE",
    "InfoNCEAnchor",
    "Kind",
    "L1Out",
    "LogLikelihood",
    "Objective",
    "PearsonChi2",
    "ReverseKL",
    "SquaredHellinger",
]
