package timeline

import (
	"bufio"
	"io"
	"slices"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// event is a trace event in the format of Chrome, which Perfetto opens: "X" is a complete event with
// a duration, "M" the name of a process or thread. Times are in microseconds.
type event struct {
	Phase    string         `json:"ph"`
	Name     string         `json:"name"`
	Category string         `json:"cat,omitempty"`
	Start    *int64         `json:"ts,omitempty"`
	Duration *int64         `json:"dur,omitempty"`
	PID      int            `json:"pid"`
	TID      int            `json:"tid"`
	Args     map[string]any `json:"args"`
}

// Trace writes the timelines as trace events: a process per node and a thread per mount. Steps that
// overlap, because they were repeated in turn, are in further threads of the mount: the events of
// a thread must not overlap. The time 0 is the start of the first step.
func Trace(w io.Writer, nodes []*mountstate.Timeline) error {
	out := bufio.NewWriter(w)
	zero := first(nodes)
	head := map[string]any{"start": zero.UTC()}
	start, err := text.JSONLine(head)
	if err != nil {
		return err
	}
	_, _ = out.WriteString("{\"displayTimeUnit\":\"ms\",\n\"otherData\":" + start + ",\n\"traceEvents\":[\n")
	separator := ""
	for i, t := range nodes {
		for _, e := range events(t, i+1, zero) {
			line, err := text.JSONLine(e)
			if err != nil {
				return err
			}
			_, _ = out.WriteString(separator + line) // Flush returns the error
			separator = ",\n"
		}
	}
	_, _ = out.WriteString("\n]}\n")
	return out.Flush()
}

// first returns the start of the first step.
func first(nodes []*mountstate.Timeline) (zero time.Time) {
	for _, t := range nodes {
		for _, l := range t.Lives {
			for _, s := range l.Steps {
				if zero.IsZero() || s.Started.Before(zero) {
					zero = s.Started
				}
			}
		}
	}
	return zero
}

// events returns the events of a node.
func events(t *mountstate.Timeline, pid int, zero time.Time) []event {
	list := []event{{Phase: "M", Name: "process_name", PID: pid, Args: map[string]any{"name": t.Node}}}
	tid := 0
	for _, l := range t.Lives {
		ordered := slices.Clone(l.Steps)
		slices.SortStableFunc(ordered, func(a, b mountstate.Step) int { return a.Started.Compare(b.Started) })
		for _, path := range paths(ordered) {
			name := l.ClientMount
			if path != "" {
				name += " " + path
			}
			ends := []time.Time{} // of the last step of each thread of this mount
			for _, s := range ordered {
				if s.Path != path {
					continue
				}
				n := slices.IndexFunc(ends, func(end time.Time) bool { return !s.Started.Before(end) })
				if n < 0 {
					n = len(ends)
					ends = append(ends, s.Finished)
					list = append(list, event{Phase: "M", Name: "thread_name", PID: pid, TID: tid + n + 1, Args: map[string]any{"name": name}})
				}
				ends[n] = s.Finished
				list = append(list, complete(&l, &s, pid, tid+n+1, zero))
			}
			tid += len(ends)
		}
	}
	return list
}

func complete(l *mountstate.Life, s *mountstate.Step, pid, tid int, zero time.Time) event {
	start := s.Started.Sub(zero).Microseconds()
	length := s.Finished.Sub(zero).Microseconds() - start // rounded like the start, so that events do not overlap
	args := map[string]any{"clientmount": l.ClientMount, "phase": s.Phase, "seconds": s.Seconds, "tries": s.Tries}
	for key, value := range map[string]string{"workflow": l.Workflow, "path": s.Path, "error": s.Error} {
		if value != "" {
			args[key] = value
		}
	}
	if s.Failed {
		args["failed"] = true
	}
	return event{Phase: "X", Name: s.Name, Category: s.Kind, Start: &start, Duration: &length, PID: pid, TID: tid, Args: args}
}
