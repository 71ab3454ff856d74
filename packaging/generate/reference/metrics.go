package reference

import (
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/clientmount"
)

// metricTable explains the metrics of clientmountd.
func metricTable() string {
	var rows [][]string
	for _, m := range clientmount.Metrics() {
		var labels []string
		for _, l := range m.Labels {
			label := code(l.Name)
			if l.Values != nil {
				label += ": " + codes(l.Values)
			}
			labels = append(labels, label)
		}
		rows = append(rows, []string{code(m.Name), m.Type, strings.Join(labels, "; "), m.Help})
	}
	return table([]string{"metric", "type", "labels", "meaning"}, rows)
}
