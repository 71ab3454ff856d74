package copytool

import (
	"fmt"
	"io"
	"time"
)

// report writes the output of dcp: a line every few seconds, and figures at the end.
type report struct {
	out                              io.Writer
	now                              func() time.Time
	start, last                      time.Time
	interval                         time.Duration
	items, directories, files, links int
	done, total                      int64
}

func newReport(out io.Writer, now func() time.Time, interval time.Duration) *report {
	start := now()
	return &report{out: out, now: now, start: start, last: start, interval: interval}
}

// add adds copied bytes, and writes a line if the interval has passed.
func (r *report) add(n int64) {
	r.done += n
	if now := r.now(); r.interval > 0 && now.Sub(r.last) >= r.interval {
		r.last = now
		r.line("")
	}
}

func (r *report) line(state string) {
	seconds := r.now().Sub(r.start).Seconds()
	percent := int64(100)
	if r.total > 0 {
		percent = min(100, 100*r.done/r.total)
	}
	rate := float64(r.done) / max(seconds, 0.001)
	if state == "" {
		state = fmt.Sprintf("%.0f secs left ...", float64(r.total-r.done)/max(rate, 1))
	}
	fmt.Fprintf(r.out, "Copied %s (%d%%) in %.3f secs (%s/s) %s\n", size(float64(r.done)), percent, seconds, size(rate), state)
}

func (r *report) end() {
	r.line("done")
	seconds := r.now().Sub(r.start).Seconds()
	fmt.Fprintf(r.out, "Seconds: %.3f\nItems: %d\n  Directories: %d\n  Files: %d\n  Links: %d\nData: %s (%d bytes)\nRate: %s/s (%d bytes in %.3f seconds)\n",
		seconds, r.items, r.directories, r.files, r.links, size(float64(r.done)), r.done,
		size(float64(r.done)/max(seconds, 0.001)), r.done, seconds)
}

func size(bytes float64) string {
	for _, unit := range []string{"B", "KiB", "MiB", "GiB"} {
		if bytes < 1024 {
			return fmt.Sprintf("%.3f %s", bytes, unit)
		}
		bytes /= 1024
	}
	return fmt.Sprintf("%.3f TiB", bytes)
}
