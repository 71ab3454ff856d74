package screen

import (
	"time"

	"github.com/compute-daemons/compute-daemons/internal/printable"
	"github.com/compute-daemons/compute-daemons/internal/transfer"
)

// Left is how long a copy will still take, as its command says or else by what
// it has done so far; empty when nobody knows.
func Left(m transfer.Movement) string {
	switch {
	case m.State != transfer.Running:
		return ""
	case m.Left != "":
		return printable.Line(m.Left)
	case m.Percent == nil || *m.Percent <= 0 || *m.Percent >= 100 || m.Elapsed() <= 0:
		return ""
	}
	done := float64(*m.Percent)
	return time.Duration(float64(m.Elapsed()) * (100 - done) / done).Round(time.Second).String()
}
