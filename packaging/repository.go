package packaging

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Key is a temporary signing key for tests.
type Key struct{ home string }

// keyID is the user ID of the key.
const keyID = "packages@test.invalid"

// NewKey creates a key; Remove removes it.
func NewKey() (*Key, error) {
	home, err := os.MkdirTemp("", "gpg-") // a short path, because it contains the socket of the agent
	if err != nil {
		return nil, err
	}
	k := &Key{home}
	cmd := k.Command("gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", keyID, "rsa3072", "sign", "never")
	if out, err := cmd.CombinedOutput(); err != nil {
		k.Remove()
		return nil, fmt.Errorf("create a key: %w\n%s", err, out)
	}
	return k, nil
}

// Command returns a command with access to this key only.
func (k *Key) Command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "GNUPGHOME="+k.home)
	return cmd
}

// Remove stops the agent, which has the key in memory, and deletes the key.
func (k *Key) Remove() {
	_ = k.Command("gpgconf", "--kill", "gpg-agent").Run()
	os.RemoveAll(k.home)
}

// MakeRepository creates a dnf repository with the packages in dir, like make repo in the
// source tree root. Its URL is url, or that of its path if url is empty. It is signed if
// key is not nil.
func MakeRepository(root, dir, url string, key *Key, rpms []string) error {
	script := filepath.Join(root, "packaging/repo.sh")
	cmd := exec.Command(script, append([]string{dir}, rpms...)...)
	cmd.Env = append(os.Environ(), "GPG_KEY=")
	if key != nil {
		cmd = key.Command(script, cmd.Args[1:]...)
		cmd.Env = append(cmd.Env, "GPG_KEY="+keyID)
	}
	cmd.Env = append(cmd.Env, "REPO_URL="+url)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", script, err, out)
	}
	return nil
}
