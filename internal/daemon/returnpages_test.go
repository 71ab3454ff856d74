package daemon

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// filePages sums what of this program's own file is in memory, in kB.
func filePages(t *testing.T) (kB int) {
	t.Helper()
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	ours := false
	for line := range strings.Lines(string(smaps)) {
		f := strings.Fields(line)
		switch {
		case len(f) >= 5 && strings.Contains(f[0], "-"):
			ours = len(f) == 6 && f[5] == exe
		case ours && f[0] == "Rss:":
			n, _ := strconv.Atoi(f[1])
			kB += n
		}
	}
	return kB
}

var written = map[string]int{"before": 1} // in the writable part of the file

func TestReturnPages(t *testing.T) {
	written["now"] = 2
	before := filePages(t)
	if err := ReturnPages(); err != nil {
		t.Fatal(err)
	}
	after := filePages(t)
	if after > before-500 {
		t.Errorf("%d kB before, %d kB after", before, after)
	}
	if written["before"]+written["now"] != 3 {
		t.Error("what was written is lost")
	}
	if err := ReturnPages(); err != nil { // as often as one likes
		t.Error(err)
	}
}
