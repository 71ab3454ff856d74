package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// activate measures what a client waits that comes while no daemon runs: the
// socket is there, the client connects, and only then the daemon is started.
func (s *offload) activate() error {
	path := filepath.Join(s.Dir, "activated.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	defer l.Close()
	if err := os.Chmod(path, 0o666); err != nil {
		return err
	}
	file, err := l.File()
	if err != nil {
		return err
	}
	defer file.Close()
	o, err := s.commandLine(s.cluster.Address(), s.cluster.CertFile(), "--config="+os.DevNull)
	if err != nil {
		return err
	}
	o.Listen = file
	var answers, creates []float64
	for range s.starts {
		answer, create, err := s.activated(path, o)
		if err != nil {
			return err
		}
		answers, creates = append(answers, answer), append(creates, create)
	}
	s.add("exec to first answer", "ms", 60, false, answers, "socket activation; from before fork until a client that was there first has its answer")
	s.add("exec to first create", "ms", noTarget, false, creates, "the same until a create right after that is answered")
	return nil
}

func (s *offload) activated(path string, o lab.DaemonOptions) (answer, create float64, err error) {
	conn, c, err := dial(jobUser, path)
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close()
	conn.Connect()
	d, err := s.StartDaemon(o)
	if err != nil {
		return 0, 0, err
	}
	if _, err := c.Version(s.ctx, new(emptypb.Empty), grpc.WaitForReady(true)); err != nil {
		return 0, 0, fmt.Errorf("%w: %v", err, d.Log())
	}
	answer = milliseconds(time.Since(d.Started))
	if _, err := s.create(c); err != nil {
		return 0, 0, err
	}
	create = milliseconds(time.Since(d.Started))
	return answer, create, s.stop(d)
}
