//go:build cgo

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// main builds and runs main.go without cgo. With it, Go needs the C compiler for package net: if CC is wrong, that
// build fails before a line of main.go can say so.
func main() {
	program := filepath.Join(".bin", "demo")
	env := append(os.Environ(), "CGO_ENABLED=0")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Env, build.Stderr = env, os.Stderr
	err := build.Run()
	if err == nil {
		err = syscall.Exec(program, []string{program}, env)
	}
	fmt.Fprintln(os.Stderr, "kratos:", err)
	os.Exit(1)
}
