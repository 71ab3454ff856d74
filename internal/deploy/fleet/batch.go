package fleet

import (
	"fmt"
	"strconv"
	"strings"
)

// ParseBatch reads how many nodes a batch has: a number, or a part of all in percent,
// of which a rest counts as a node. 0, from "", is no batches.
func ParseBatch(text string, nodes int) (int, error) {
	if text == "" {
		return 0, nil
	}
	number, percent := strings.CutSuffix(text, "%")
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 || percent && n > 100 {
		return 0, fmt.Errorf("a batch is a number of nodes or a part of them as 10%%, not %.80q", text)
	}
	if percent {
		n = (nodes*n + 99) / 100
	}
	return max(n, 1), nil
}
