package kube

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// checkTokenFile reads the token once and looks at who else could: whoever has
// the token can act as this daemon.
func checkTokenFile(o Options) error {
	if _, err := readToken(o.TokenFile); err != nil {
		return err
	}
	info, err := os.Stat(o.TokenFile)
	if err != nil {
		return err
	}
	owner, group := os.Geteuid(), os.Getegid()
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		owner, group = int(st.Uid), int(st.Gid)
	}
	mode := info.Mode().Perm()
	if private(mode, group == os.Getegid() || o.handedOver(o.TokenFile)) {
		return nil
	}
	mend := "chmod 0600 " + o.TokenFile
	if owner != os.Geteuid() {
		mend = fmt.Sprintf("chgrp %d %s; chmod 0640 %s", os.Getegid(), o.TokenFile, o.TokenFile)
	}
	if o.Strict {
		return fmt.Errorf("%s may be read by others than its owner (mode %04o), and strict_credentials is set; run %s", o.TokenFile, mode, mend)
	}
	o.Log.Warn("the token file may be read by others than its owner: whoever has it can act as this daemon",
		"file", o.TokenFile, "mode", fmt.Sprintf("%04o", mode), "hint", mend)
	return nil
}

// private reports whether nobody but the owner can use a file, besides its group
// when that is ours: root owns the token of a daemon with a user of its own, and
// the daemon's group may read it, no more.
func private(mode fs.FileMode, ours bool) bool {
	return mode&0o077 == 0 || ours && mode&0o037 == 0
}

// handedOver reports whether systemd put the file there (LoadCredential=). It lets
// the daemon's user in by an access list, which looks like a group's right to read.
func (o Options) handedOver(path string) bool {
	dir := o.Environ("CREDENTIALS_DIRECTORY")
	return dir != "" && strings.HasPrefix(filepath.Clean(path), filepath.Clean(dir)+"/")
}
