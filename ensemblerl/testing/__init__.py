"""The laws, shipped: hold your own sampler, policy, learner, goal, store or executor to them.

Each ``check_*`` is a plain function that raises `BrokenLawError` (an AssertionError) whose message
names the law and says what came::

    from ensemblerl.testing import check_sampler

    def test_mine():
        check_sampler(MySampler)

The laws have teeth: `ensemblerl.testing.broken.BROKEN` lists parts that each break one of them,
and our tests see to it that each is caught by that one.
"""

from ensemblerl.testing.core import BrokenLawError, Control
from ensemblerl.testing.executor_laws import check_executor
from ensemblerl.testing.goal_laws import check_goal
from ensemblerl.testing.learner_laws import check_learner
from ensemblerl.testing.lessons import taught
from ensemblerl.testing.policy_laws import check_policy
from ensemblerl.testing.sampler_laws import check_sampler
from ensemblerl.testing.store_laws import check_store

__all__ = [
    "BrokenLawError",
    "Control",
    "check_executor",
    "check_goal",
    "check_learner",
    "check_policy",
    "check_sampler",
    "check_store",
    "taught",
]
