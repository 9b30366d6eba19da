from alignkit.study.claim import Claim
from alignkit.study.study import Study
def moderator_hypotheses(claim: Claim, study: Study):
    return ()
