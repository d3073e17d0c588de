package main

import (
	"archive/tar"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

var npmFiles sync.Map // by package and file

// npm returns a file of a package, as npm's registry has it now.
func npm(t *testing.T, pkg, file string) string {
	t.Helper()
	lookPath(t, "npm", "npm")
	read, _ := npmFiles.LoadOrStore(pkg+" "+file, sync.OnceValues(func() (string, error) { return npmPack(pkg, file) }))
	content, err := read.(func() (string, error))()
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func npmPack(pkg, file string) (string, error) {
	out, err := exec.CommandContext(interrupted, "npm", "pack", "--silent", "--pack-destination", ".bin", pkg).Output()
	if err != nil {
		return "", fmt.Errorf("npm pack %s: %w", pkg, err)
	}
	f, err := os.Open(filepath.Join(".bin", strings.TrimSpace(string(out))))
	if err != nil {
		return "", err
	}
	defer f.Close()
	gz, err := gzip.NewReader(f)
	if err != nil {
		return "", err
	}
	for files := tar.NewReader(gz); ; {
		header, err := files.Next()
		if err != nil {
			return "", fmt.Errorf("%s of %s: %w", file, pkg, err)
		}
		if header.Name == "package/"+file {
			content, err := io.ReadAll(files)
			return string(content), err
		}
	}
}
