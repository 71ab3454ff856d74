package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// findBinary returns the program that the environment variable names, or the
// one in the repository's bin folder.
func findBinary(variable, name, target string) (string, error) {
	if path := os.Getenv(variable); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("%s: %w", variable, err)
		}
		return path, nil
	}
	root, err := repository()
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, "bin", name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("there is no bin/%s: run make %s, or name one in %s", name, target, variable)
	}
	return path, nil
}

// repository finds the module's folder from the working directory upwards.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(mod), "module github.com/compute-daemons/compute-daemons\n") {
			return dir, nil
		}
	}
	return "", fmt.Errorf("the working directory is not inside the repository")
}
