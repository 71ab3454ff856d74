// Command daemon stands in for the daemons and their client on the nodes of the world "deploy". Its
// release is text after the end of the program, so that one build has all releases. R is the root
// directory of the node.
//
// The fake systemctl starts it with "ready". Like the real daemons, it is ready only if it reaches the
// API server in its configuration with its token: both are of the same release.
package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// mark precedes the release. Its last occurrence counts.
const mark = "\nrelease "

func main() {
	if err := run(os.Getenv("R"), filepath.Base(os.Args[0]), os.Args[1:]); err != nil {
		_, _ = os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}

func run(root, name string, args []string) error {
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	text := string(program)
	release := strings.TrimSpace(text[strings.LastIndex(text, mark)+len(mark):])
	unit := root + "/etc/systemd/system/" + name
	switch strings.Join(args, " ") {
	case "version":
		_, err = os.Stdout.WriteString("Version " + release + "\n")
	case "ready":
		return ready(root+"/etc/"+name, release)
	case "status -o json":
		var answer []byte
		if answer, err = os.ReadFile(root + "/run/fake/answer." + name); err == nil {
			_, err = os.Stdout.Write(answer)
		}
	case "install":
		if _, err := os.Stat(unit + ".service"); err == nil {
			return errors.New("the service has already been installed")
		}
		text := "# Written by " + name + " install. Remove it with: " + name + " remove.\n# release " + release + "\n"
		err = os.WriteFile(unit+".service", []byte(text+"[Service]\nExecStart=/usr/bin/"+name+"\n"), 0o644)
		if sockets, _ := os.ReadFile(root + "/run/fake/sockets"); err == nil && strings.Contains("\n"+string(sockets), "\n"+name+"\n") {
			err = os.WriteFile(unit+".socket", []byte(text), 0o644)
		}
	case "remove":
		err = errors.Join(os.Remove(unit+".service"), remove(unit+".socket"))
	default:
		return errors.New("unknown command")
	}
	return err
}

func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// ready returns an error if the daemon does not become ready.
func ready(directory, release string) error {
	token, err := os.ReadFile(directory + "/service.token")
	if err != nil {
		return err
	}
	settings, err := os.ReadFile(directory + "/config.d/50-nnf-deploy.toml")
	if err != nil {
		return err
	}
	_, host, _ := strings.Cut(string(settings), `service_host = "`)
	host, _, _ = strings.Cut(host, ".")
	switch {
	case release == "c":
		return errors.New("release c never becomes ready")
	case host == "" || !strings.Contains(string(token), "SECRET-"+host+"-"):
		return errors.New("the API server " + host + " refuses the token")
	}
	return nil
}
