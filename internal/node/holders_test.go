package node

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
)

func TestHolders(t *testing.T) {
	n := plant(t, "proc")
	m, err := n.MountAt("/mnt/x")
	must(t, err)
	got, err := n.Holders(t.Context(), *m, 0)
	must(t, err)
	want := []string{
		"mount /mnt/x/nested",
		"loop /mnt/x/image (deleted)",
		"swap /mnt/x/swap",
		"pid 100 (bash, uid 1000): cwd /mnt/x/dir",
		"pid 101 (chrooted, uid 0): root /mnt/x",
		"pid 102 (evil?[31m, uid 1002): exe /mnt/x/bin/prog",
		"pid 103 (writer, uid 1003): fd /mnt/x/out",
		"pid 104 (mapper, uid 1004): mmap /mnt/x/data base",
		"pid 300 (container, uid 0): other namespace /host/x",
		"pid 301 (inside, uid 1005): cwd /host/x/work",
		"pid 302 (heir, uid 1006): fd /mnt/x/inherited",
	}
	var lines []string
	for _, h := range got {
		lines = append(lines, h.String())
	}
	if a, b := strings.Join(lines, "\n"), strings.Join(want, "\n"); a != b {
		t.Errorf("got\n%s\nwant\n%s", a, b)
	}
}

func TestHoldersLimit(t *testing.T) {
	n := plant(t, "proc")
	m, err := n.MountAt("/mnt/x")
	must(t, err)
	for limit := 1; limit <= 12; limit++ {
		got, err := n.Holders(t.Context(), *m, limit)
		if err != nil || len(got) != min(limit, 11) {
			t.Errorf("limit %d: %d, %v", limit, len(got), err)
		}
	}
}

// When time is up there is still what was found so far.
func TestHoldersPartial(t *testing.T) {
	n := plant(t, "proc")
	m, err := n.MountAt("/mnt/x")
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	got, err := n.Holders(ctx, *m, 0)
	if !errors.Is(err, context.Canceled) || len(got) != 3 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestHoldersWithoutProc(t *testing.T) {
	n := &Node{Root: t.TempDir()}
	if _, err := n.Holders(t.Context(), Mount{Mountpoint: "/mnt/x"}, 0); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{"a b": "a b", "\x1b[31m\n": "?[31m?", "é\xff": "é?", "\u202e": "?"} {
		if got := printable(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}
