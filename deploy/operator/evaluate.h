#ifndef TROUPE_DEPLOY_OPERATOR_EVALUATE_H_
#define TROUPE_DEPLOY_OPERATOR_EVALUATE_H_

#include <string>
#include <vector>

namespace troupe {

// Becomes troupe-actor, which has the environments and LibTorch and lies beside this program, with
// --evaluate --once and `flags`.  Returns only if that cannot be had: an exit code, once stderr
// says why.
int BecomeEvaluator(const std::vector<std::string>& flags);

}  // namespace troupe

#endif  // TROUPE_DEPLOY_OPERATOR_EVALUATE_H_
