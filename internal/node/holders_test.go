package node

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
)

func TestHolders(t *testing.T) {
	n := plant(t, "proc")
	m, err := n.MountAt("/mnt/x")
	must(t, err)
	got, err := n.Holders(t.Context(), *m, 0)
	must(t, err)
	want := []string{
		"mount /mnt/x/nested below it",
		"loop device loop0 backed by /mnt/x/image (deleted)",
		"swap file /mnt/x/swap",
		"pid 100 (bash, uid 1000, session-3.scope): cwd /mnt/x/dir",
		"pid 101 (chrooted, uid 0): root /mnt/x",
		"pid 102 (evil?[31m, uid 1002, evil?[31m.service): exe /mnt/x/bin/prog",
		"pid 103 (writer, uid 1003, slurm job 17): fd /mnt/x/out",
		"pid 104 (mapper, uid 1004): mmap /mnt/x/data base",
		"pid 300 (container, uid 0, containerd container 0123456789ab, mount namespace 2): mounted at /host/x in another namespace",
		"pid 301 (inside, uid 1005, mount namespace 2): cwd /host/x/work",
		"pid 302 (heir, uid 1006, mount namespace 3): fd /mnt/x/inherited",
	}
	wantHolders(t, got, want)
}

// wantHolders compares the texts of holders, in order.
func wantHolders(t *testing.T, got []Holder, want []string) {
	t.Helper()
	var lines []string
	for _, h := range got {
		lines = append(lines, h.String())
	}
	if a, b := strings.Join(lines, "\n"), strings.Join(want, "\n"); a != b {
		t.Errorf("got\n%s\nwant\n%s", a, b)
	}
}

// Every kind of holder has a text; those without a process have no pid.
func TestHolderText(t *testing.T) {
	list := []Holder{
		{Kind: "mount", Path: "/mnt/x/sub"},
		{Kind: "mounted", Path: "/mnt/y"},
		{Kind: "loop", Device: "loop3", Path: "/mnt/x/image"},
		{Kind: "swap", Path: "/mnt/x/swap"},
		{Kind: "swap", Path: "/dev/dm-3"},
		{Kind: "stacked", Device: "dm-5", Path: "vg-snap"},
		{Kind: "stacked", Device: "md0"},
		{PID: 42, UID: 1001, Command: "vim", Kind: "cwd", Path: "/mnt/x/src"},
		{PID: 43, Command: "dd", Kind: "device", Path: "/dev/dm-3", Unit: "cron.service"},
		{PID: 44, Command: "pause", Kind: "other namespace", Path: "/host", Namespace: "4026532001"},
	}
	want := []string{
		"mount /mnt/x/sub below it",
		"mounted at /mnt/y",
		"loop device loop3 backed by /mnt/x/image",
		"swap file /mnt/x/swap",
		"swap on /dev/dm-3",
		"device-mapper device vg-snap (dm-5) on top of it",
		"block device md0 on top of it",
		"pid 42 (vim, uid 1001): cwd /mnt/x/src",
		"pid 43 (dd, uid 0, cron.service): device /dev/dm-3",
		"pid 44 (pause, uid 0, mount namespace 4026532001): mounted at /host in another namespace",
	}
	for i, h := range list {
		if h.String() != want[i] {
			t.Errorf("got %q, want %q", h, want[i])
		}
		if strings.Contains(h.String(), "pid") != (h.PID > 0) {
			t.Errorf("%q: pid %d", h, h.PID)
		}
	}
	for most, want := range map[int]string{
		0: "10 more", 2: want[0] + "; " + want[1] + "; 8 more", 10: strings.Join(want, "; "), 99: strings.Join(want, "; "),
	} {
		if got := HolderText(list, most); got != want {
			t.Errorf("%d: got %q, want %q", most, got, want)
		}
	}
	if got := HolderText(nil, 5); got != "" {
		t.Error(got)
	}
}

func TestUnitOf(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for _, tt := range []struct{ cgroup, want string }{
		{"0::/system.slice/sshd.service\n", "sshd.service"},
		{"0::/user.slice/user-1000.slice/session-3.scope\n", "session-3.scope"},
		{"0::/user.slice/user-1000.slice/user@1000.service/init.scope\n", "user@1000.service/init.scope"},
		{"0::/user.slice/user-1000.slice/user@1000.service/app.slice/vim.service\n", "user@1000.service/vim.service"},
		{"0::/user.slice/user-1000.slice/user@1000.service\n", "user@1000.service"},
		{"0::/system.slice/flux.service/imp-shell-0-f9Tk.service\n", "imp-shell-0-f9Tk.service"},
		{"0::/init.scope\n", "init.scope"},
		{"0::/\n", ""},
		{"", ""},
		{"garbage", ""},
		{"0::/system.slice\n", ""},
		{"0::/system.slice/docker-" + id + ".scope\n", "docker container 0123456789ab"},
		{"0::/machine.slice/libpod-" + id + ".scope/container\n", "podman container 0123456789ab"},
		{"0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + id + ".scope\n", "podman container 0123456789ab"},
		{"0::/machine.slice/libpod-conmon-" + id + ".scope\n", "libpod-conmon-" + id + ".scope"}, // the monitor process of the container
		{"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-" + id + ".scope\n", "containerd container 0123456789ab"},
		{"0::/kubepods.slice/kubepods-pod1_2.slice/crio-" + id + ".scope\n", "cri-o container 0123456789ab"},
		{"0::/system.slice/containerd.service/kubepods-burstable-pod1_2.slice:cri-containerd:" + id + "\n", "container 0123456789ab"},
		{"12:memory:/docker/" + id + "\n1:name=systemd:/docker/" + id + "\n0::/\n", "docker container 0123456789ab"},
		{"3:cpu:/kubepods/besteffort/pod1/" + id + "\n1:name=systemd:/kubepods/besteffort/pod1/" + id + "\n", "container 0123456789ab"},
		{"0::/system.slice/slurmstepd.scope/job_123/step_0/user/task_0\n", "slurm job 123"},
		{"0::/system.slice/node1_slurmstepd.scope/job_9/step_batch/slurm\n", "slurm job 9"},
		{"4:memory:/slurm/uid_1000/job_77/step_0\n1:name=systemd:/system.slice/slurmd.service\n", "slurm job 77"},
		{"0::/system.slice/x.service/job_123\n", "x.service"},
		{"1:name=systemd:/system.slice/cron.service\n0::/\n", "cron.service"},
		{"5:memory:/a\n1:name=systemd:/system.slice/cron.service\n", "cron.service"},
	} {
		if got := unitOf(tt.cgroup); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.cgroup, got, tt.want)
		}
	}
}

func TestHoldersLimit(t *testing.T) {
	n := plant(t, "proc")
	m, err := n.MountAt("/mnt/x")
	must(t, err)
	for limit := 1; limit <= 12; limit++ {
		got, err := n.Holders(t.Context(), *m, limit)
		if err != nil || len(got) != min(limit, 11) {
			t.Errorf("limit %d: %d, %v", limit, len(got), err)
		}
	}
}

// At the time limit, the holders found so far are returned.
func TestHoldersPartial(t *testing.T) {
	n := plant(t, "proc")
	m, err := n.MountAt("/mnt/x")
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	got, err := n.Holders(ctx, *m, 0)
	if !errors.Is(err, context.Canceled) || len(got) != 3 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestHoldersWithoutProc(t *testing.T) {
	n := &Node{Root: t.TempDir()}
	if _, err := n.Holders(t.Context(), Mount{Mountpoint: "/mnt/x"}, 0); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{"a b": "a b", "\x1b[31m\n": "?[31m?", "é\xff": "é?", "\u202e": "?"} {
		if got := printable(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}
