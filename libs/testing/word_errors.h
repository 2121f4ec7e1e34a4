#pragma once
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace parley::testing {

// Words of `wanted` that `said` leaves out or has otherwise, and words that it adds: the least of
// them, which divided by the number of wanted words is the word error rate.
inline int WordErrors(const std::vector<std::string>& said,
                      const std::vector<std::string>& wanted) {
  std::vector<int> row(wanted.size() + 1);
  for (size_t j = 0; j < row.size(); ++j) row[j] = static_cast<int>(j);
  for (size_t i = 1; i <= said.size(); ++i) {
    int corner = std::exchange(row[0], static_cast<int>(i));
    for (size_t j = 1; j < row.size(); ++j) {
      const int both = corner + (said[i - 1] == wanted[j - 1] ? 0 : 1);
      corner = row[j];
      row[j] = std::min({both, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row.back();
}

}  // namespace parley::testing
