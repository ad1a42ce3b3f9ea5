/* The newer calls for mounts, and calls as no honest program makes them. Prints what should not be so. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* <sys/mount.h> and <linux/mount.h> exclude each other. */
#define MNT_DETACH 2
int umount2(const char *path, int flags);

static long mount_(const void *source, const void *target, const void *type, unsigned long flags, const void *data)
{
	return syscall(SYS_mount, source, target, type, flags, data);
}
static long open_tree_(int dir, const char *path, unsigned flags) { return syscall(SYS_open_tree, dir, path, flags); }
static long move_mount_(int from, const char *path, int to, const char *target, unsigned flags)
{
	return syscall(SYS_move_mount, from, path, to, target, flags);
}
static long set_(int dir, const char *path, unsigned flags, unsigned long set, unsigned long clear)
{
	struct mount_attr attributes = {.attr_set = set, .attr_clr = clear};
	return syscall(SYS_mount_setattr, dir, path, flags, &attributes, sizeof attributes);
}
static int config(int fs, unsigned command, const char *key, const char *value)
{
	return syscall(SYS_fsconfig, fs, command, key, value, 0);
}

/* A call that must succeed, or fail in this way. */
#define WORKS(call) do { if ((call) < 0) printf("FAILED: %s: %s\n", #call, strerror(errno)); } while (0)
#define FAILS(call, why) do { \
	if ((call) >= 0) printf("WORKED: %s\n", #call); \
	else if (errno != (why)) printf("ANOTHER WAY: %s: %s\n", #call, strerror(errno)); \
} while (0)

static int exists(const char *path) { return access(path, F_OK) == 0; }

/* As composefs and libmount mount. */
static void honest(void)
{
	mkdir("/mnt/l", 0755), mkdir("/mnt/m", 0755), mkdir("/mnt/n", 0755), mkdir("/mnt/l/in-it", 0755);
	int fs, tree;
	WORKS(fs = syscall(SYS_fsopen, "overlay", 1));
	WORKS(config(fs, 1, "source", "test"));
	WORKS(config(fs, 1, "lowerdir", "/mnt/l:/mnt/n"));
	WORKS(config(fs, 6, NULL, NULL));
	WORKS(tree = syscall(SYS_fsmount, fs, 1, 0));
	if (!(fcntl(fs, F_GETFD) & FD_CLOEXEC)) puts("a descriptor is not closed");
	WORKS(move_mount_(tree, "", AT_FDCWD, "/mnt/m", MOVE_MOUNT_F_EMPTY_PATH));
	if (!exists("/mnt/m/in-it")) puts("the overlay is not there");
	WORKS(tree = open_tree_(AT_FDCWD, "/mnt/m", OPEN_TREE_CLONE));
	if (fcntl(tree, F_GETFD) & FD_CLOEXEC) puts("a descriptor is closed");
	WORKS(set_(tree, "", AT_EMPTY_PATH, MOUNT_ATTR_RDONLY, 0));
	int mnt = open("/mnt", O_PATH);
	WORKS(move_mount_(tree, "", mnt, "n", MOVE_MOUNT_F_EMPTY_PATH));
	if (!exists("/mnt/n/in-it") || mkdir("/mnt/n/more", 0755) == 0) puts("the copy is not as it should be");
	close(tree);
	WORKS(umount2("/mnt/n", 0));
	WORKS(umount2("/mnt/m", MNT_DETACH));
	WORKS(mount_("x", "/mnt/n", "tmpfs", 0, NULL));
	WORKS(fs = syscall(SYS_fspick, AT_FDCWD, "/mnt/n", 1));
	WORKS(config(fs, 0, "ro", NULL));
	WORKS(config(fs, 7, NULL, NULL));
	if (mkdir("/mnt/n/more", 0755) == 0) puts("it is still writable");
	close(fs);
	WORKS(umount2("/mnt/n", 0));
	FAILS(syscall(SYS_fsopen, "ext4", 1), ENOSYS);
	FAILS(syscall(SYS_fsopen, "proc", 1), ENOSYS);
	FAILS(umount2("/mnt/n", 0), EINVAL);
	FAILS(umount2("/nowhere", 0), ENOENT);
	FAILS(mount_("/nowhere", "/mnt/n", NULL, MS_BIND, NULL), ENOENT);
	FAILS(mount_("x", "/mnt/n", "ext4", 0, NULL), ENOENT);
	FAILS(mount_("/mnt", "/mnt/n", "ext4", 0, NULL), ENOTBLK);
	FAILS(move_mount_(99, "", AT_FDCWD, "/mnt/m", MOVE_MOUNT_F_EMPTY_PATH), EBADF);
}

static void nonsense(void)
{
	char *end = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap(end + 4096, 4096);
	memset(end, 'x', 4096);
	static char long_path[8192], long_data[8192];
	memset(long_path, '/', sizeof long_path - 1), memset(long_data, 'x', sizeof long_data - 1);
	const void *bad[] = {(void *)1, (void *)-1L, (void *)0x7fffffffffffL, (void *)(1UL << 63), end + 4000};
	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
		FAILS(mount_("x", bad[i], "tmpfs", 0, NULL), EFAULT);
		FAILS(mount_("x", "/mnt/n", bad[i], 0, NULL), EFAULT);
		FAILS(mount_(bad[i], "/mnt/n", "tmpfs", 0, NULL), EFAULT);
		FAILS(syscall(SYS_umount2, bad[i], 0), EFAULT);
		FAILS(syscall(SYS_fsopen, bad[i], 0), EFAULT);
		FAILS(syscall(SYS_mount_setattr, AT_FDCWD, "/", 0, bad[i % 4], 32), EFAULT);
		FAILS(move_mount_(AT_FDCWD, bad[i], AT_FDCWD, "/mnt/n", 0), EFAULT);
	}
	FAILS(mount_("x", NULL, "tmpfs", 0, NULL), EFAULT);
	FAILS(mount_("x", "/mnt/n", NULL, 0, NULL), EINVAL);
	FAILS(mount_("x", long_path, "tmpfs", 0, NULL), ENAMETOOLONG);
	FAILS(mount_("x", "/mnt/n", "tmpfs", 0, long_data), EINVAL);
	FAILS(umount2("/mnt", 0xffff), EINVAL);
	FAILS(open_tree_(AT_FDCWD, "/mnt", OPEN_TREE_CLONE | 0x40000000), EINVAL);
	FAILS(syscall(SYS_mount_setattr, AT_FDCWD, "/", 0, end, 8), EINVAL);
	FAILS(syscall(SYS_kexec_load, 0, 0, NULL, 0), EPERM);
}

/* Many callers at once; those that are killed meanwhile get no answer. */
static void crowd(void)
{
	mkdir("/mnt/n", 0755);
	for (int i = 0; i < 300; i++) {
		pid_t child = fork();
		if (child < 0) continue;
		if (child == 0) {
			for (int round = 0; round < 5; round++) mount_("x", "/nowhere", "tmpfs", 0, NULL);
			mount_("debug", "/mnt/n", "debugfs", 0, NULL);
			_exit(0);
		}
		if (i % 3 == 0) {
			usleep(i * 7);
			kill(child, SIGKILL);
		}
	}
	while (wait(NULL) > 0) ;
	WORKS(mount_("x", "/mnt/n", "tmpfs", 0, NULL));
	WORKS(umount2("/mnt/n", 0));
}

/* Shows what is covered in the kernel's own, or makes it writable. */
static void hostile(void)
{
	FAILS(set_(AT_FDCWD, "/sys", 0, 0, MOUNT_ATTR_RDONLY), EPERM);
	FAILS(set_(AT_FDCWD, "/", AT_RECURSIVE, 0, MOUNT_ATTR_RDONLY), EPERM);
	FAILS(move_mount_(AT_FDCWD, "/proc/kallsyms", AT_FDCWD, "/mnt/file", 0), EPERM);
	struct mount_attr unbindable = {.propagation = MS_UNBINDABLE};
	FAILS(syscall(SYS_mount_setattr, AT_FDCWD, "/proc/kallsyms", 0, &unbindable, sizeof unbindable), EPERM);
	FAILS(syscall(SYS_fsopen, "debugfs", 0), EPERM);
	FAILS(syscall(SYS_fspick, AT_FDCWD, "/sys", 0), EPERM);
	FAILS(syscall(SYS_fspick, AT_FDCWD, "/proc/kallsyms", 0), EPERM);
	FAILS(syscall(SYS_fspick, AT_FDCWD, "/dev", 0), EPERM);
	int tree = open_tree_(AT_FDCWD, "/proc", OPEN_TREE_CLONE);
	char text[16];
	int file = openat(tree, "kallsyms", O_RDONLY);
	printf("shown by a copy: %zd\n", read(file, text, sizeof text));
}

int main(int count, char **arguments)
{
	setbuf(stdout, NULL);
	for (int i = 1; i < count; i++) {
		if (!strcmp(arguments[i], "honest")) honest();
		if (!strcmp(arguments[i], "nonsense")) nonsense();
		if (!strcmp(arguments[i], "crowd")) crowd();
		if (!strcmp(arguments[i], "hostile")) hostile();
		printf("%s: over\n", arguments[i]);
	}
}
