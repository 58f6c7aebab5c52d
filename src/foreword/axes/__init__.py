"""The five choices that make a method: how a prompt is made, where it enters, where its tokens
stand, what is read off, and which of the backbone's own weights move. They never import each other.
"""
