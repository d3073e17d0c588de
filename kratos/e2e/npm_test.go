package e2e

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
)

// npmFile returns a func that returns a file of a package, as npm's registry has it now.
func npmFile(pkg, file string) func() (string, error) {
	return sync.OnceValues(func() (string, error) { return npmPack(pkg, file) })
}

func npmPack(pkg, file string) (string, error) {
	cmd := exec.CommandContext(interrupted, "npm", "pack", "--silent", "--pack-destination", ".bin", pkg)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
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
