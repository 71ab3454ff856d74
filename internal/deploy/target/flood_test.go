package target

import (
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/deploy/remote"
)

// flood is a node that does not stop talking.
type flood struct{ line string }

func (f flood) Run(_ context.Context, _ string, _ remote.Script, _ io.Reader, stdout io.Writer) error {
	text := strings.Repeat(f.line, 1<<20/len(f.line))
	for range 256 {
		if _, err := io.WriteString(stdout, text); err != nil {
			return err
		}
	}
	return nil
}

// A node that floods us costs a bounded amount of memory, and ends as an error.
func TestFlood(t *testing.T) {
	for _, line := range []string{"x", "note\tx\n", "nnf-deploy\tprobe\t1\n", "journal\ty\n"} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		_, err := Probe(t.Context(), flood{line}, wanted(pack("1")))
		if p := (*Problem)(nil); !errors.As(err, &p) {
			t.Errorf("%q: %v", line, err)
		}
		o, err := Apply(t.Context(), t.Context(), flood{line}, "n", new(Plan), func(string) {})
		if err == nil {
			t.Errorf("%q: it went well: %+v", line, o)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		if more := int64(after.HeapAlloc) - int64(before.HeapAlloc); more > 64<<20 {
			t.Errorf("%q: %d MiB are kept", line, more>>20)
		}
	}
}
