package clientmount

import (
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/node"
	"github.com/compute-daemons/compute-daemons/internal/volume"
)

// The kernel's device decides; text of the source never does.
func TestOurs(t *testing.T) {
	dm := node.Mount{ID: 5, Mountpoint: testPath, FSType: "xfs", Source: testDevice, Root: "/", Major: 253, Minor: 7}
	with := func(change func(m *node.Mount)) node.Mount { m := dm; change(&m); return m }
	raw := node.Mount{ID: 5, Mountpoint: testPath, FSType: "devtmpfs", Source: "devtmpfs", Root: "/dm-7", Minor: 5}
	lustre := node.Mount{ID: 5, Mountpoint: testPath, FSType: "lustre", Source: "10.1.1.2@tcp0:/job7fs", Root: "/"}
	for name, c := range map[string]struct {
		typ    string
		m      node.Mount
		active bool // the device node exists
		noted  bool // we noted this mount after making it
		want   bool
	}{
		"our device":                        {"xfs", dm, true, false, true},
		"source text alone is no proof":     {"xfs", with(func(m *node.Mount) { m.Major = 8 }), true, false, false},
		"source text differs, device ours":  {"xfs", with(func(m *node.Mount) { m.Source = "/dev/dm-7" }), true, false, true},
		"another type":                      {"xfs", with(func(m *node.Mount) { m.FSType = "ext4" }), true, false, false},
		"node gone, device mapper knows":    {"xfs", dm, false, false, true},
		"node gone, another device":         {"xfs", with(func(m *node.Mount) { m.Major = 8 }), false, false, false},
		"node gone, noted":                  {"xfs", with(func(m *node.Mount) { m.Major = 7 }), false, true, true},
		"noted, but the node says no":       {"xfs", with(func(m *node.Mount) { m.Major = 7 }), true, true, false},
		"raw":                               {"none", raw, true, false, true},
		"raw, another device":               {"none", func() node.Mount { m := raw; m.Root = "/sda"; return m }(), true, false, false},
		"raw, device removed, noted":        {"none", func() node.Mount { m := raw; m.Root = "/gone//deleted"; return m }(), false, true, true},
		"raw, a file system is mounted":     {"none", dm, true, false, false},
		"lustre, NID spelled differently":   {"lustre", lustre, true, false, true},
		"lustre, another file system":       {"lustre", func() node.Mount { m := lustre; m.Source = "10.1.1.2@tcp:/other"; return m }(), true, false, false},
		"lustre expected, something local":  {"lustre", dm, true, false, false},
		"xfs expected, lustre of same name": {"xfs", lustre, true, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := volume.ForMount(testObject(c.typ), 0, testProfile(), volume.Options{})
			if err != nil {
				t.Fatal(err)
			}
			f := newFakeMachine()
			f.lvs[testVG+"/"+testLV] = c.active
			var rec *MountRecord
			if c.noted {
				rec = &MountRecord{Mounted: identityOf(c.m)}
			}
			if got, err := ours(f, c.m, p, rec); got != c.want || err != nil {
				t.Errorf("ours = %v, %v", got, err)
			}
		})
	}
}

func TestForeignText(t *testing.T) {
	p, err := volume.ForMount(testObject(dws.TypeXFS), 0, testProfile(), volume.Options{})
	if err != nil {
		t.Fatal(err)
	}
	text := errForeign(node.Mount{Source: "/dev/sda1", FSType: "ext4", Major: 8, Minor: 1}, p).Error()
	if !strings.HasPrefix(text, "unexpected mount at path "+testPath+". Device /dev/sda1") || !strings.Contains(text, "type ext4") {
		t.Error(text)
	}
}

func TestShorten(t *testing.T) {
	long := strings.Repeat("ä", 5000)
	got := shorten(long, 1000)
	if len(got) > 1000 || !strings.HasPrefix(got, "ää") || !strings.HasSuffix(got, "ää") || !strings.Contains(got, "shortened") || strings.ContainsRune(got, '\uFFFD') {
		t.Errorf("%d %q", len(got), got)
	}
	if shorten("short", 1000) != "short" {
		t.Error("short text changed")
	}
}

// Pauses grow, have jitter and stay at or below the ceiling.
func TestPause(t *testing.T) {
	for n := 1; n < 40; n++ {
		for range 20 {
			d := pause(n, 30*time.Second, false)
			if d > 30*time.Second || d < firstPause*8/10 || n > 10 && d < 24*time.Second {
				t.Fatalf("pause %d is %v", n, d)
			}
		}
	}
	if d := pause(1, 30*time.Second, true); d < 24*time.Second {
		t.Errorf("a hopeless case is looked at again after %v", d)
	}
}
