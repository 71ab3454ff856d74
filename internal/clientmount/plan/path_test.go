package plan

import (
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

func TestCheckPath(t *testing.T) {
	deep := strings.Repeat("/"+strings.Repeat("d", maxName), 15) // 3840 bytes
	tests := []struct {
		path  string
		roots []string
		want  string // clean path, or empty when refused
		why   string
	}{
		{"/mnt/nnf/a-0", nil, "/mnt/nnf/a-0", ""},
		{"//mnt//nnf/a/", nil, "/mnt/nnf/a", ""},
		{"/l/us@x:1+2=3,4%5_6.7-8", nil, "/l/us@x:1+2=3,4%5_6.7-8", ""},
		{"/mnt/...", nil, "/mnt/...", ""},
		{"/var/x", nil, "/var/x", ""},
		{"/home/user", nil, "/home/user", ""},
		{"/etcetera", nil, "/etcetera", ""},
		{"/usr2/x", nil, "/usr2/x", ""},
		{"/mnt/etc", nil, "/mnt/etc", ""},
		{deep, nil, deep, ""},

		{"", nil, "", "empty"},
		{"mnt/nnf", nil, "", "absolute"},
		{"./mnt", nil, "", "absolute"},
		{"/", nil, "", "on /"},
		{"///", nil, "", "on /"},
		{"/mnt/../etc", nil, "", ".."},
		{"/mnt/nnf/..", nil, "", ".."},
		{"/mnt/./nnf", nil, "", ".."},
		{"/mnt/a b", nil, "", "is made of"},
		{"/mnt/a\nb", nil, "", `"/mnt/a\nb"`},
		{"/mnt/a\x00", nil, "", `\x00`},
		{"/mnt/\u202ex", nil, "", `\u202e`},
		{"/mnt/a;reboot", nil, "", "is made of"},
		{"/mnt/$(reboot)", nil, "", "$"},
		{"/mnt/$HOST_COUNT/x", nil, "", "variable $HOST_COUNT is not known"},
		{"/mnt/`reboot`", nil, "", "is made of"},
		{"/mnt/'x'", nil, "", "is made of"},
		{`/mnt/\x`, nil, "", "is made of"},
		{"/mnt/*", nil, "", "is made of"},
		{"/mnt/" + strings.Repeat("n", maxName+1), nil, "", "255"},
		{deep + "/" + strings.Repeat("e", 255), nil, "", "4095"},
		{"/etc", nil, "", "on or below /etc"},
		{"/etc/", nil, "", "on or below /etc"},
		{"//etc//pam.d", nil, "", "on or below /etc"},
		{"/usr/local/bin", nil, "", "on or below /usr"},
		{"/proc/self/root/mnt", nil, "", "on or below /proc"},
		{"/run/x", nil, "", "on or below /run"},
		{"/var/run/x", nil, "", "on or below /var/run"},
		{"/root", nil, "", "on or below /root"},
		{"/mnt", nil, "", "on /mnt itself"},
		{"/var/", nil, "", "on /var itself"},
		{"/tmp", nil, "", "on /tmp itself"},
		{"/home", nil, "", "on /home itself"},

		{"/mnt/nnf/a", []string{"/mnt/nnf"}, "/mnt/nnf/a", ""},
		{"/mnt/nnf/a", []string{"/x", "/mnt/nnf/"}, "/mnt/nnf/a", ""},
		{"/mnt/nnf/a", []string{"/"}, "/mnt/nnf/a", ""},
		{"/mnt/nnf", []string{"/mnt/nnf"}, "", "outside mount.roots, which allows mounts below /mnt/nnf only"},
		{"/var/spool/cron", []string{"/mnt"}, "", "outside mount.roots, which allows mounts below /mnt only"},
		{"/var/lib/rpm", []string{"/mnt"}, "", "outside mount.roots, which allows mounts below /mnt only"},
		{"/opt/x", []string{"/mnt"}, "", "/opt/x"},
		{"/mnt", []string{"/mnt"}, "", "on /mnt itself"},
		{"/mnt/nnfx/a", []string{"/mnt/nnf"}, "", "below /mnt/nnf only"},
		{"/mnt/other", []string{"/mnt/nnf", "/l"}, "", "below /mnt/nnf, /l only"},
		{"/etc/x", []string{"/etc"}, "", "on or below /etc"},
	}
	for _, tt := range tests {
		t.Run(text.Cut(tt.path, 80), func(t *testing.T) {
			got, err := checkPath("mountPath", tt.path, tt.roots)
			if tt.want != "" {
				if err != nil || got != tt.want {
					t.Errorf("checkPath = %q, %v, want %q", got, err, tt.want)
				}
				return
			}
			if err == nil {
				t.Fatalf("accepted as %q", got)
			}
			wantError(t, err, dws.Fatal, "mountPath", tt.why)
		})
	}
}

// A path that is too long is the object's fault, also when it is too long for
// the expansion of variables, whose faults are the profile's.
func TestVeryLongPath(t *testing.T) {
	for _, typ := range []string{dws.TypeXFS, dws.TypeLustre} {
		for _, n := range []int{maxPath + 1, maxLine + 1, 1 << 20} {
			cm := clientMount(typ)
			cm.Spec.Mounts[0].MountPath = "/" + strings.Repeat("a", n-1)
			_, err := ForMount(cm, 0, template(), Options{})
			wantError(t, err, dws.Fatal, "spec.mounts[0].mountPath", pathLengthRule)
		}
	}
}
