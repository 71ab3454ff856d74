package fleet

import (
	"io"
	"math"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// document is the answer for machines.
type document struct {
	Counts Counts    `json:"counts"`
	Nodes  []nodeDoc `json:"nodes"`
}

type nodeDoc struct {
	Node    string   `json:"node"`
	Result  State    `json:"result"`
	Seconds float64  `json:"seconds"`
	Cause   string   `json:"cause,omitempty"`
	Hint    string   `json:"hint,omitempty"`
	Changes []string `json:"changes"`
	Notes   []string `json:"notes,omitempty"`
	Daemons []string `json:"daemons_say,omitempty"`
	Journal []string `json:"journal,omitempty"`
}

// JSON writes results for machines.
func JSON(w io.Writer, results []Result) error {
	d := document{Counts: Count(results), Nodes: []nodeDoc{}}
	for _, r := range results {
		changes := r.Changes
		if changes == nil {
			changes = []string{}
		}
		seconds := math.Round(r.Time.Seconds()*1000) / 1000
		d.Nodes = append(d.Nodes, nodeDoc{r.Node, r.State, seconds, r.Cause, r.Hint, changes, r.Notes, r.Said, r.Journal})
	}
	return text.JSON(w, d)
}
