package machine

import "testing"

func TestUnitFile(t *testing.T) {
	for line, want := range map[string]bool{
		"/usr/lib/systemd/system/clientmountd.service:50: Unknown key name 'RestartSteps' in section 'Service', ignoring.":         true,
		"[/usr/lib/systemd/system/nnf-dm.service:36] Unknown lvalue 'RestartMaxDelaySec' in section 'Service'":                     true,
		"/etc/systemd/system/nnf-dm.service.d/50-nnf-deploy.conf:7: Invalid environment assignment, ignoring: x":                   true,
		"/usr/lib/systemd/system/nnf-dm.socket:12: ListenStream= references a path below legacy directory /var/run/, updating ...": true,
		"/usr/lib/systemd/system/sshd.service:50: Unknown key name 'X' in section 'Service', ignoring.":                            false,
		"clientmountd.service: Watchdog timeout (limit 2s)!":                                                                       false,
	} {
		if got := unitFile.MatchString(line); got != want {
			t.Errorf("%s: %v", line, got)
		}
	}
}
