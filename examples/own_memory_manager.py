"""My memory manager lets equal pages share a frame until one is written: is it right?  The steps in which it fails."""

from attrs import evolve

from sim.hw.mmu import Kind
from sim.testing import PlainManager, find_violation


class Mine(PlainManager):
    """What I wrote: pages with the same bytes use one frame, and a write to it makes a copy."""

    def sharing(self, one, other):
        """Return the pages that must lose the right to write."""
        return (other,)  # a bug: the page `one` can still write the frame

    def share(self, one, other):
        mine, yours = self.leaves[one], self.leaves[other]
        same_salt = self.owners[one[0]][1] == self.owners[other[0]][1]
        equal = self.frames[mine.frame] == self.frames[yours.frame]
        if not (same_salt and equal and mine.rights == yours.rights and yours.rights.write):
            return False
        for page in self.sharing(one, other):
            self.leaves[page] = evolve(mine, rights=evolve(mine.rights, write=False), copy_on_write=True)
        return True

    def fault(self, space, page, kind):
        leaf = self.leaves.get((space, page))
        if kind is not Kind.WRITE or leaf is None or not (leaf.copy_on_write and leaf.rights.user):
            return False
        self.give_frame((space, page), evolve(leaf.rights, write=True), self.frames[leaf.frame])
        return True


class Repaired(Mine):
    def sharing(self, one, other):
        return (one, other)


print(f"Mine:\n{find_violation(Mine)}\n")
print(f"Repaired:\n{find_violation(Repaired, examples=100) or 'nothing found'}")
