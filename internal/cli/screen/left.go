package screen

import (
	"time"

	"github.com/compute-daemons/compute-daemons/internal/datamovement/client"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// Left is how long a copy will still take, as its command says or else by what
// it has done so far; empty when nobody knows.
func Left(m client.Movement) string {
	switch {
	case m.State != client.Running:
		return ""
	case m.Left != "":
		return text.Line(m.Left)
	case m.Percent == nil || *m.Percent <= 0 || *m.Percent >= 100 || m.Elapsed() <= 0:
		return ""
	}
	done := float64(*m.Percent)
	return time.Duration(float64(m.Elapsed()) * (100 - done) / done).Round(time.Second).String()
}
