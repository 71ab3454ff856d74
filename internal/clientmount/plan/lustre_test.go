package plan

import (
	"strings"
	"testing"
)

func TestSameLustre(t *testing.T) {
	tests := []struct {
		name, a, b string
		same       bool
	}{
		{"equal", "10.1.1.2@tcp:/fs", "10.1.1.2@tcp:/fs", true},
		{"tcp is tcp0", "10.1.1.2@tcp:/fs", "10.1.1.2@tcp0:/fs", true},
		{"no network is tcp0", "10.1.1.2:/fs", "10.1.1.2@tcp:/fs", true},
		{"tcp is not tcp1", "10.1.1.2@tcp:/fs", "10.1.1.2@tcp1:/fs", false},
		{"o2ib is o2ib0", "10.1.1.2@o2ib:/fs", "10.1.1.2@o2ib0:/fs", true},
		{"other network", "25@kfi:/fs", "25@tcp:/fs", false},
		{"order", "25@kfi:26@kfi:/fs", "26@kfi:25@kfi:/fs", true},
		{"separators", "25@kfi,26@kfi:27@kfi:/fs", "25@kfi:26@kfi,27@kfi:/fs", true},
		{"repeated", "25@kfi:25@kfi0:/fs", "25@kfi:/fs", true},
		{"one more", "25@kfi:26@kfi:/fs", "25@kfi:/fs", false},
		{"one less", "25@kfi:/fs", "25@kfi:26@kfi:/fs", false},
		{"addresses without network", "10.0.0.1:10.0.0.2:/fs", "10.0.0.2@tcp,10.0.0.1@tcp:/fs", true},
		{"host names", "MGS1@tcp:/fs", "mgs1@tcp0:/fs", true},
		{"other file system", "25@kfi:/fs", "25@kfi:/fs2", false},
		{"prefix of the name", "25@kfi:/fsx", "25@kfi:/fs", false},
		{"case of the name", "25@kfi:/FS", "25@kfi:/fs", false},
		{"directory of it", "25@kfi:/fs/sub", "25@kfi:/fs", false},
		{"same directory", "25@kfi:/fs/sub/", "25@kfi0:/fs/sub", true},
		{"IPv6", "fd00::1@tcp:fd00::2@tcp:/fs", "fd00::2@tcp0,fd00::1@tcp:/fs", true},
		{"other IPv6", "fd00::1@tcp:/fs", "fd00::2@tcp:/fs", false},
		{"IPv6 groups in another order", "fd00:1:2::3@tcp:/fs", "fd00:2:1::3@tcp:/fs", false},
		{"a device", "/dev/mapper/x", "/dev/mapper/x", false},
		{"no NIDs", ":/fs", ":/fs", false},
		{"no name", "25@kfi:/", "25@kfi:/", false},
		{"empty", "", "", false},
		{"not lustre", "nfsserver:/export", "25@kfi:/export", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := SameLustre(tt.a, tt.b); got != tt.same {
				t.Errorf("SameLustre(%q, %q) = %v", tt.a, tt.b, got)
			}
			if got := SameLustre(tt.b, tt.a); got != tt.same {
				t.Errorf("SameLustre(%q, %q) = %v", tt.b, tt.a, got)
			}
		})
	}
}

// The kernel shows addresses in place of the host names in the object.
func TestShownAs(t *testing.T) {
	addresses := map[string][]string{"mgs.example.org": {"192.0.2.1", "192.0.2.2"}, "mgs-b": {"2001:db8::1"}}
	for _, tt := range []struct {
		asked, shown string
		want         bool
	}{
		{"mgs.example.org@tcp:/fs", "192.0.2.1@tcp:/fs", true},
		{"MGS.example.org:/fs", "192.0.2.2@tcp0:/fs", true},
		{"mgs.example.org@tcp,mgs-b@tcp:/fs", "192.0.2.1@tcp:2001:db8::1@tcp:/fs", true},
		{"mgs.example.org@tcp:/fs", "192.0.2.3@tcp:/fs", false},
		{"mgs.example.org@tcp:/fs", "192.0.2.1@o2ib:/fs", false},
		{"mgs.example.org@tcp:/fs", "192.0.2.1@tcp:/other", false},
		{"mgs.example.org@tcp:/fs", "192.0.2.1@tcp:192.0.2.9@tcp:/fs", false},
		{"unknown@tcp:/fs", "192.0.2.1@tcp:/fs", false},
		{"mgs.example.org@tcp:/fs", "tmpfs", false},
	} {
		if got := ShownAs(tt.asked, tt.shown, addresses); got != tt.want {
			t.Errorf("ShownAs(%q, %q) = %t", tt.asked, tt.shown, got)
		}
	}
	for source, want := range map[string]string{
		"mgs.example.org@tcp,192.0.2.1@tcp:mgs-b@o2ib:/fs": "mgs-b mgs.example.org", "192.0.2.1@tcp:2001:db8::1@tcp:/fs": "", "12@gni:/fs": "", "": "",
	} {
		if got := strings.Join(LustreHosts(source), " "); got != want {
			t.Errorf("LustreHosts(%q) = %q, want %q", source, got, want)
		}
	}
}
