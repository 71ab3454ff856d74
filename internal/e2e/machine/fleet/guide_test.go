package fleet

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/manual"
	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
)

// TestGuides runs the commands of the guides that install on all compute nodes. It starts with
// nodes on which nothing is installed and ends with such nodes.
func TestGuides(t *testing.T) {
	require.Tool(t, "jq")
	f := New(t, 2)
	f.Distribution(f.Nodes...)
	dir := f.guideDirectory()
	manifests := filepath.Join(f.repository(), "packaging/manifests")
	names := strings.NewReplacer(
		"compute-07 compute-08", "compute-01 compute-02", "compute-[01-20]", "compute-[01-02]", "compute-[01-20,30]", "compute-[01-02]",
		"doctor --bundle case-4711 'compute-[03,17]'", "doctor --bundle case-4711 'compute-[01-02]' || [ $? = 1 ]", // a container lacks devices
		"my-job", "job7",
		"admin@tds", "$(kubectl config current-context)", "/root/nnf-dm", "nnf-dm",
		"-f clientmountd-rbac.yaml -f nnf-dm-rbac.yaml", "-f "+manifests+"/clientmountd-rbac.yaml -f "+manifests+"/nnf-dm-rbac.yaml",
		"/usr/share/doc/nnf-deploy/manifests", manifests)
	blocks := manual.Set{}
	for _, page := range []string{"credentials.md", "faq.md", "nnf-deploy.md"} {
		blocks[page] = manual.Commands(t, f.repository(), "docs/"+page, "internal/e2e/machine/fleet TestGuides")
	}
	own := maps.Clone(blocks)
	// Other tests run these blocks without nodes.
	blocks["credentials.md"] = append(blocks["credentials.md"], manual.Commands(t, f.repository(), "docs/credentials.md", "internal/e2e/deploycreds TestCredentialsGuide")...)
	blocks["nnf-deploy.md"] = append(blocks["nnf-deploy.md"], manual.Commands(t, f.repository(), "docs/nnf-deploy.md", "cmd/nnf-deploy TestDeployGuide")...)
	blocks["nnf-deploy.md"] = append(blocks["nnf-deploy.md"], manual.Commands(t, f.repository(), "docs/nnf-deploy.md", "cmd/nnf-deploy TestReportGuide")...)
	for i, step := range []struct {
		page, part string
		want       []string
	}{
		{"nnf-deploy.md", "ssh compute-01", []string{"storageNodes"}},
		{"credentials.md", "nnf-deploy credentials --out credentials\n", nil},
		{"nnf-deploy.md", "--binary-dir bin", []string{"ok"}},
		{"nnf-deploy.md", "--batch 10%", []string{"install clientmountd-", "changes", "unchanged"}},
		{"nnf-deploy.md", "--failed", []string{"unchanged"}},
		{"faq.md", "--batch 10%", []string{"compute-02", "active"}},
		{"credentials.md", "--no-programs --credentials credentials\n", nil},
		{"credentials.md", "--context admin@tds", []string{"expires"}},
		{"credentials.md", "--bound --lifetime", nil},
		{"credentials.md", "nnf-deploy status", []string{"created", "does not expire"}},
		{"credentials.md", "--identity per-node 'compute", []string{"ok", "per-node"}},
		{"credentials.md", "credentials --identity per-node", []string{"the token of compute-01/nnf-dm expires at"}},
		{"credentials.md", "--identity shared", []string{"ok", "shared"}},
		{"faq.md", "kubectl apply", []string{"created"}},
		{"nnf-deploy.md", "nnf-deploy status 'compute", []string{"active", "answers", "does not expire"}},
		{"nnf-deploy.md", "nnf-deploy health", []string{"2 of 2 nodes are fine"}},
		{"nnf-deploy.md", "nnf-deploy doctor", []string{"support bundles: 2, in case-4711/NODE.tar.gz"}},
		{"faq.md", "kubectl get clientmounts -A", []string{"compute-01 job7-xfs Major\n"}},
		{"nnf-deploy.md", "nnf-deploy timeline", []string{"activate ", "compute-01"}},
		{"nnf-deploy.md", "nnf-deploy status -o json", []string{"compute-02\n"}},
		{"nnf-deploy.md", "nnf-deploy uninstall", []string{"ok"}},
	} {
		t.Run(fmt.Sprintf("%s %d", step.page, i+1), func(t *testing.T) {
			f := f.For(t)
			block := blocks.Take(t, step.page, step.part)
			switch step.part {
			case "--identity per-node 'compute":
				f.accounts()
			case "kubectl get clientmounts -A": // a mount fails on the first node, which has no such volume
				f.Fixture.UseProfile(fixture.ProfileSpec{})
				f.Fixture.Mount("job7-xfs", fixture.MountSpec{Path: "/mnt/nnf/job7-0", Type: "xfs"})
				f.Fixture.AwaitError("job7-xfs")
				defer f.Fixture.Delete("job7-xfs")
			case "nnf-deploy status -o json":
				f.Nodes[1].Do("systemctl stop clientmountd")
			}
			r := f.Run(nil, "bash", "-ec", "cd "+dir+"\nPATH=$PWD:$PATH\n"+names.Replace(block))
			if r.Code != 0 {
				t.Fatalf("%s\n%+v", block, r)
			}
			if step.part == "--identity per-node 'compute" {
				f.Nodes[0].Do("systemctl is-active nnf-dm.timer && systemctl is-enabled nnf-dm.timer")
			}
			for _, part := range step.want {
				if !contains(r.Stdout+r.Stderr, part) {
					t.Errorf("%s\nno %q in %+v", block, part, r)
				}
			}
		})
	}
	for page, list := range own {
		for _, block := range list {
			if slices.Contains(blocks[page], block) {
				t.Errorf("docs/%s: no step runs %q", page, block)
			}
		}
	}
	for _, n := range f.Nodes {
		n.Do("! [ -e /usr/bin/clientmountd ] && ! [ -e /etc/nnf-dm/service.token ]")
	}
	for _, daemon := range daemons {
		f.rotate(daemon) // the following tests need a valid token
	}
}

// guideDirectory creates a working directory for the commands of the guides. It has the tools, an
// ssh that can reach the nodes, and programs and packages in bin.
func (f *Fleet) guideDirectory() string {
	f.t.Helper()
	dir := filepath.Join(f.Dir, "guide")
	if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o700); err != nil {
		f.t.Fatal(err)
	}
	_, release := f.Releases() // another test may write to bin of the source tree
	links := map[string]string{"bin/rpm": filepath.Dir(release.Packages[0])}
	for _, p := range programs {
		links["bin/"+p] = filepath.Join(release.Programs, p)
	}
	for _, p := range []string{"nnf-deploy", "kubectl"} {
		links[p] = filepath.Join(f.repository(), "bin", p)
	}
	for name, target := range links {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			f.t.Fatal(err)
		}
	}
	f.write("guide/ssh", 0o700, "#!/bin/sh\nPATH=${PATH#*:}\nexec ssh -F "+f.Config()+" \"$@\"\n")
	return dir
}
