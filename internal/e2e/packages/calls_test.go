package packages

import (
	"slices"
	"strings"
	"testing"
)

// What the scriptlets ask of systemd, and that they succeed although each of the
// programs here fails and is noisy. Where systemd does not run, only links and
// files are made. Nothing is ever mounted or unmounted.
func TestScriptletsCall(t *testing.T) {
	one, two := must(t, first), must(t, second)
	const (
		catalog = "journalctl --update-catalog"
		reload  = "systemctl daemon-reload"
		tmp     = "systemd-tmpfiles --create "
		user    = "systemd-sysusers --replace=/usr/lib/sysusers.d/nnf-dm.conf -"
	)
	for _, test := range []struct {
		pkg, kind                string
		install, upgrade, remove []string
	}{
		{
			"clientmountd", chroot,
			[]string{"systemctl --no-reload preset clientmountd.service", tmp + "clientmountd.conf", catalog},
			[]string{tmp + "clientmountd.conf", catalog},
			[]string{"systemctl --no-reload disable clientmountd.service", catalog},
		}, {
			"clientmountd", running,
			[]string{"systemctl --no-reload preset clientmountd.service", tmp + "clientmountd.conf", catalog, reload, "systemd-modules-load clientmountd.conf"},
			[]string{tmp + "clientmountd.conf", catalog, reload, "systemd-modules-load clientmountd.conf", reload, "systemctl try-restart clientmountd.service"},
			[]string{"systemctl --no-reload disable clientmountd.service", "systemctl stop clientmountd.service", reload, catalog},
		}, {
			"nnf-dm", chroot,
			[]string{user, "systemctl --no-reload preset nnf-dm.socket", tmp + "nnf-dm.conf", catalog},
			[]string{user, tmp + "nnf-dm.conf", catalog},
			[]string{"systemctl --no-reload disable nnf-dm.socket nnf-dm.service", catalog},
		}, {
			"nnf-dm", running,
			[]string{user, "systemctl --no-reload preset nnf-dm.socket", tmp + "nnf-dm.conf", catalog, reload},
			[]string{user, tmp + "nnf-dm.conf", catalog, reload, reload, "systemctl try-restart nnf-dm.service"},
			[]string{"systemctl --no-reload disable nnf-dm.socket nnf-dm.service", "systemctl stop nnf-dm.socket nnf-dm.service", reload, catalog},
		},
	} {
		t.Run(test.pkg+" "+test.kind, func(t *testing.T) {
			m := newMachine(t, test.kind)
			for _, step := range []struct {
				args []string
				want []string
			}{
				{[]string{"-i", one.rpmOf(t, test.pkg)}, test.install},
				{[]string{"-U", two.rpmOf(t, test.pkg)}, test.upgrade},
				{[]string{"-e", test.pkg}, test.remove},
			} {
				m.change(step.args...)
				if got := m.calls(); !slices.Equal(got, step.want) {
					t.Errorf("rpm %s calls\n%s\nwant\n%s", step.args[0], strings.Join(got, "\n"), strings.Join(step.want, "\n"))
				}
			}
		})
	}
}
