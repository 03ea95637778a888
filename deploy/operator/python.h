#ifndef TROUPE_DEPLOY_OPERATOR_PYTHON_H_
#define TROUPE_DEPLOY_OPERATOR_PYTHON_H_

#include <string>
#include <vector>

namespace troupe {

// Is `command` one that the Python package troupe carries out?
bool IsPythons(const std::string& command);

// Becomes Python with the package troupe, for `words`, of which the first is the command.  The
// interpreter is that of TROUPE_PYTHON, else the one of a build (build/venv beside this program's
// folder of build/PRESET/bin), else python3.  Returns only if it cannot be started: an exit code,
// once stderr says why.
int BecomePython(const std::vector<std::string>& words);

}  // namespace troupe

#endif  // TROUPE_DEPLOY_OPERATOR_PYTHON_H_
