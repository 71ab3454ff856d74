package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
)

func TestWords(t *testing.T) {
	for _, tt := range []struct {
		args string
		code int
		want string
	}{
		{"version", 0, "Version "},
		{"help", 0, "--idle-timeout"},
		{"config default", 0, "[socket]"},
		{"config check", 0, ""},
		{"install", 2, "systemctl enable --now nnf-dm"},
		{"nonsense", 2, "unknown command"},
		{"--kubernetes-service-host=h --kubernetes-service-port=1", 1, "nnf data movement service token"},
		{"--simulated --socket=relative", 2, "--socket"},
	} {
		var out bytes.Buffer
		code := run(context.Background(), strings.Fields(tt.args), nil, &out, &out)
		if code != tt.code || !strings.Contains(out.String(), tt.want) {
			t.Errorf("%s: %d, want %d with %q:\n%s", tt.args, code, tt.code, tt.want, out.String())
		}
	}
}

func TestServes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan int, 1)
	var out bytes.Buffer
	go func() { ended <- run(ctx, []string{"--simulated", "--socket", path}, nil, &out, &out) }()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if c, err := net.Dial("unix", path); err == nil {
			c.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nobody listens")
		}
	}
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := pb.NewDataMoverClient(conn).Version(t.Context(), new(emptypb.Empty)); err != nil {
		t.Error(err)
	}
	cancel()
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d: %s", code, out.String())
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket stays: %v", err)
	}
}
