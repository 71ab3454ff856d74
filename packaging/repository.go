package packaging

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Key is a signing key that exists as long as a test.
type Key struct{ home string }

// keyID is gpg's name of the key.
const keyID = "packages@test.invalid"

// NewKey creates a key; Remove removes it.
func NewKey() (*Key, error) {
	home, err := os.MkdirTemp("", "gpg-") // short: it has the agent's socket
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

// Command returns a command that knows the key, and no other.
func (k *Key) Command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "GNUPGHOME="+k.home)
	return cmd
}

// Remove ends the agent, which has the key in its memory, and deletes the key.
func (k *Key) Remove() {
	_ = k.Command("gpgconf", "--kill", "gpg-agent").Run()
	os.RemoveAll(k.home)
}

// MakeRepository makes dir a dnf repository with the packages, as make repo does in the
// source tree root. The nodes find it at url, or at its path if url is empty. It is signed
// if there is a key.
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
