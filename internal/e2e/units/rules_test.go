package units

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/systemd"
)

// no has the harmless values of boolean directives. The empty value is always harmless.
var no = []string{"no", "false", "off", "0"}

// blinds are the directives with which nnf-dm could not identify its callers or could not
// reach the API server.
var blinds = map[string][]string{
	"PrivateUsers": no, "DynamicUser": no, "PrivatePIDs": no, "PrivateNetwork": no, "NetworkNamespacePath": nil,
}

func forbidden(table map[string][]string, d directive) bool {
	harmless, listed := table[d.key]
	return listed && d.value != "" && !slices.Contains(harmless, d.value)
}

func TestForbidden(t *testing.T) {
	for line, want := range map[string]bool{
		"PrivateTmp=yes": true, "PrivateTmp=disconnected": true, "PrivateTmp=no": false, "PrivateTmp=": false,
		"ProtectSystem=strict": true, "ProtectProc=invisible": true, "ProtectProc=default": false,
		"MountFlags=slave": true, "MountFlags=shared": false, "ReadWritePaths=/mnt": true,
		"RootDirectory=/": false, "User=nobody": true, "User=root": false, "NoNewPrivileges=yes": false,
	} {
		key, value, _ := strings.Cut(line, "=")
		if got := forbidden(systemd.Hiding, directive{key: key, value: value}); got != want {
			t.Errorf("%s: %v", line, got)
		}
	}
}

// Units, drop-ins and examples have no forbidden directives.
func TestNothingForbidden(t *testing.T) {
	tables := map[string]map[string][]string{"clientmountd": systemd.Hiding, "nnf-dm": blinds}
	for _, file := range unitFiles(t) {
		table := tables[program(file)]
		if table == nil {
			t.Errorf("%s belongs to neither daemon", file)
		}
		for _, d := range readUnit(t, file) {
			if forbidden(table, d) {
				t.Errorf("%s: %s=%s: see the head of the unit", d.where, d.key, d.value)
			}
		}
	}
}

// ProtectClock= implies a DeviceAllow=, which denies all other devices unless they are
// allowed, too.
func TestProtectClockNeedsDevices(t *testing.T) {
	for _, file := range unitFiles(t) {
		all := readUnit(t, file)
		if program(file) == "clientmountd" && values(all, "Service", "ProtectClock") != nil && !slices.Contains(values(all, "Service", "DeviceAllow"), "block-* rwm") {
			t.Errorf("%s: with ProtectClock= alone the daemon has no access to block devices", file)
		}
	}
}

// Every directive, or its group, has a comment with the reason.
func TestReasons(t *testing.T) {
	evident := []string{"Unit Description", "Unit Documentation", "Service ExecStart", "Install WantedBy"}
	for _, file := range unitFiles(t) {
		for _, d := range readUnit(t, file) {
			if len(d.comment) < 15 && !slices.Contains(evident, d.section+" "+d.key) && !strings.Contains(file, "/examples/") {
				t.Errorf("%s: %s= has no comment with a reason", d.where, d.key)
			}
		}
	}
}

// since has the directives that systemd 239, the oldest supported version, lacks, and the version that
// introduced them. Older versions log a warning about each at every daemon-reload.
var since = map[string]int{
	"ProtectHostname": 242, "RestrictSUIDSGID": 242, "OOMPolicy": 243, "ProtectKernelLogs": 244, "ProtectClock": 245,
	"ProtectProc": 247, "ProcSubset": 247, "LoadCredential": 247, "PrivateIPC": 248,
	"LoadCredentialEncrypted": 250,
}

// of239 are the directives that systemd 239, the oldest supported version, has.
const of239 = ` MemoryHigh MemoryMax After AccuracySec Alias Also AmbientCapabilities Backlog CapabilityBoundingSet CPUAffinity Description DeviceAllow DevicePolicy Documentation
	Environment ExecReload ExecStart Group IPAddressAllow IPAddressDeny KeyringMode KillMode LimitNOFILE ListenStream LockPersonality
	MemoryDenyWriteExecute MemoryHigh MemoryMax NoNewPrivileges OnBootSec OnUnitInactiveSec OOMScoreAdjust PrivateDevices PrivateMounts PrivateTmp ProtectControlGroups ProtectHome ProtectKernelModules
	ProtectKernelTunables ProtectSystem RandomizedDelaySec ReadWritePaths RemoveIPC RemoveOnStop Requires Restart RestartSec RestrictAddressFamilies
	RestrictNamespaces RestrictRealtime RuntimeDirectory RuntimeDirectoryMode RuntimeDirectoryPreserve SocketGroup SocketMode StartLimitIntervalSec
	SystemCallArchitectures SystemCallErrorNumber SystemCallFilter TimeoutStartSec TimeoutStopSec Type UMask User WantedBy Wants WatchdogSec `

// tooNew returns the reason if a directive must not be in a file, because the oldest supported systemd warns
// about it. An example may have it if its first line has the required version.
func tooNew(file, firstLine string, d directive) string {
	if slices.Contains(strings.Fields(of239), d.key) {
		return ""
	}
	from := since[d.key]
	if from == 0 {
		return fmt.Sprintf("%s: systemd 239 lacks %s=, or it is missing in both tables", d.where, d.key)
	}
	if !strings.HasPrefix(file, "systemd/examples/") {
		return fmt.Sprintf("%s: systemd before %d warns about %s= at every daemon-reload: only an example may have it", d.where, from, d.key)
	}
	var needs int
	if _, err := fmt.Sscanf(firstLine, "# systemd %d and newer:", &needs); err != nil || needs < from {
		return fmt.Sprintf("%s: %s= needs systemd %d; the first line must say \"# systemd %d and newer: ...\"", d.where, d.key, from, from)
	}
	return ""
}

func TestTooNew(t *testing.T) {
	const unit, example = "systemd/system/nnf-dm.service", "systemd/examples/nnf-dm.service.d/x.conf"
	for _, tt := range []struct {
		file, first, key string
		want             bool
	}{
		{unit, "", "Restart", false},
		{unit, "", "RestartSteps", true},
		{unit, "", "RestartMaxDelaySec", true},
		{unit, "# systemd 248 and newer: x", "ProtectProc", true},
		{"systemd/system/nnf-dm.service.d/10-runtime.conf", "", "OOMPolicy", true},
		{example, "# systemd 248 and newer: x", "ProtectProc", false},
		{example, "# systemd 246 and newer: x", "ProtectProc", true},
		{example, "# Hardening.", "ProtectProc", true},
		{example, "# systemd 260 and newer: x", "RestartSteps", true},
	} {
		if why := tooNew(tt.file, tt.first, directive{key: tt.key}); (why != "") != tt.want {
			t.Errorf("%v: %q", tt, why)
		}
	}
}

// No unit, drop-in or unlabelled example has a directive that a supported systemd warns about.
func TestNothingTooNew(t *testing.T) {
	for _, file := range unitFiles(t) {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(string(text), "\n")
		for _, d := range readUnit(t, file) {
			if why := tooNew(file, first, d); why != "" {
				t.Error(why)
			}
		}
	}
	for key := range since {
		if !slices.ContainsFunc(unitFiles(t), func(f string) bool {
			return slices.ContainsFunc(readUnit(t, f), func(d directive) bool { return d.key == key })
		}) {
			t.Errorf("%s= is in the table, but no example has it", key)
		}
	}
}

// unknown reports whether a line of systemd-analyze is the warning of this version about
// a directive that it does not support.
func unknown(line string, release int) bool {
	for key, from := range since {
		if release < from && (strings.Contains(line, fmt.Sprintf("Unknown key name '%s' in section", key)) || strings.Contains(line, fmt.Sprintf("Unknown lvalue '%s' in section", key)) ||
			strings.Contains(line, fmt.Sprintf("Unknown key '%s' in section", key))) {
			return true
		}
	}
	return false
}

func TestUnknown(t *testing.T) {
	warning := "/x/nnf-dm.service:30: Unknown key name 'PrivateIPC' in section 'Service', ignoring."
	if !unknown(warning, 247) || unknown(warning, 248) || unknown("/x: Unknown key name 'Restart' in section 'Service', ignoring.", 252) {
		t.Error("the wrong warnings are ignored")
	}
}
