package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/standin/record"
)

// laterNode leaves a process behind that makes the node after the volume's
// delay: udev is a process of its own too.
func laterNode(v *record.Volume) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	job, err := json.Marshal(v)
	if err != nil {
		return err
	}
	udev := exec.Command(filepath.Join(filepath.Dir(self), "standin"), "node", string(job))
	udev.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return udev.Start()
}

// nodeNow is what that process does.
func nodeNow(args []string, stderr io.Writer) int {
	var v record.Volume
	if err := json.Unmarshal([]byte(args[0]), &v); err != nil {
		fmt.Fprintln(stderr, "standin node:", err)
		return 2
	}
	time.Sleep(v.Late)
	v.Late = 0
	if err := makeNode(&v); err != nil {
		fmt.Fprintln(stderr, "standin node:", err)
		return 1
	}
	return 0
}
