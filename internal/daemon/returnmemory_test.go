package daemon

import (
	"os"
	"runtime"
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
	if err := returnPages(); err != nil {
		t.Fatal(err)
	}
	after := filePages(t)
	if after > before-500 {
		t.Errorf("%d kB before, %d kB after", before, after)
	}
	if written["before"]+written["now"] != 3 {
		t.Error("what was written is lost")
	}
	if err := returnPages(); err != nil { // as often as one likes
		t.Error(err)
	}
}

// garbage is kept until the end of TestReturnHeap has let go of it.
var garbage []byte

func TestReturnHeap(t *testing.T) {
	garbage = make([]byte, 64<<20)
	for i := range garbage {
		garbage[i] = 1
	}
	runtime.GC()
	before := anonymous(t)
	garbage = nil
	if err := ReturnMemory(); err != nil {
		t.Fatal(err)
	}
	if after := anonymous(t); before-after < 48<<10 {
		t.Errorf("%d kB before, %d kB after", before, after)
	}
}

func anonymous(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "Anonymous:" {
			n, _ := strconv.Atoi(f[1])
			return n
		}
	}
	t.Fatalf("no anonymous memory in %s", text)
	return 0
}
