package kube

import (
	"bytes"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPrivate(t *testing.T) {
	for _, tt := range []struct {
		mode        fs.FileMode
		ours, other bool // what is said when the group is ours, and when it is not
	}{
		{0o600, true, true}, {0o400, true, true}, {0o000, true, true}, {0o700, true, true},
		{0o640, true, false}, {0o440, true, false},
		{0o660, false, false}, {0o620, false, false}, {0o650, false, false},
		{0o644, false, false}, {0o604, false, false}, {0o601, false, false}, {0o602, false, false}, {0o666, false, false},
	} {
		if got := private(tt.mode, true); got != tt.ours {
			t.Errorf("%04o, our group: %v", tt.mode, got)
		}
		if got := private(tt.mode, false); got != tt.other {
			t.Errorf("%04o, another group: %v", tt.mode, got)
		}
	}
}

// Each way to keep a token, as the strict daemon and the other one take it.
func TestTokenFileModes(t *testing.T) {
	const other = 4242 // a group that nobody here is in
	for _, tt := range []struct {
		name        string
		mode        os.FileMode
		owner       int // 0: ours
		group       int
		credentials bool   // it lies where systemd puts credentials
		says        string // the hint; "": all is well
	}{
		{name: "owner alone", mode: 0o600},
		{name: "the daemon's group", mode: 0o640},
		{name: "the daemon's group may write", mode: 0o660, says: "chmod 0600 "},
		{name: "everybody", mode: 0o644, says: "chmod 0600 "},
		{name: "another group", mode: 0o640, group: other, says: "chmod 0600 "},
		{name: "another group, without a right", mode: 0o600, group: other},
		{name: "another owner, our group", mode: 0o640, owner: other},
		{name: "another owner, everybody", mode: 0o644, owner: other, says: fmt.Sprintf("chgrp %d ", os.Getegid())},
		{name: "handed over by systemd", mode: 0o440, group: other, credentials: true},
		{name: "handed over to everybody", mode: 0o444, group: other, credentials: true, says: "chmod 0600 "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			path := write(t, dir, "token", jwt(account), 0o600)
			if tt.owner+tt.group > 0 {
				if os.Geteuid() != 0 {
					t.Skip("not run: only root can give a file away")
				}
				if err := os.Chown(path, tt.owner, tt.group); err != nil {
					t.Fatal(err)
				}
				if tt.group == 0 {
					if err := os.Chown(path, tt.owner, os.Getegid()); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
			environ := func(name string) string {
				if tt.credentials && name == "CREDENTIALS_DIRECTORY" {
					return dir
				}
				return ""
			}
			for _, strict := range []bool{false, true} {
				var log bytes.Buffer
				err := checkTokenFile(Options{TokenFile: path, Strict: strict, Environ: environ, Log: slog.New(slog.NewTextHandler(&log, nil))})
				said := log.String()
				if strict && err != nil {
					said = err.Error()
				}
				if (err != nil) != (strict && tt.says != "") || (said == "") != (tt.says == "") || !strings.Contains(said, tt.says) || strings.Contains(said, "a.b") {
					t.Errorf("strict %v: %v, log %s", strict, err, log.String())
				}
			}
		})
	}
}

// A folder whose name only begins like the one of systemd is nothing special.
func TestHandedOver(t *testing.T) {
	for path, want := range map[string]bool{
		"/run/credentials/x.service/token": true, "/run/credentials/x.service": false, "/run/credentials/x.service-2/token": false,
		"/run/credentials/x.service/../token": false, "token": false,
	} {
		o := Options{Environ: func(string) string { return "/run/credentials/x.service/" }}
		if got := o.handedOver(path); got != want {
			t.Errorf("%s: %v", path, got)
		}
		o.Environ = func(string) string { return "" }
		if o.handedOver(filepath.Join("/", path)) {
			t.Errorf("%s without the variable", path)
		}
	}
}
